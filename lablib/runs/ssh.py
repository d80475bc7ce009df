"""One ssh connection to a login node, shared by every command: opened once, so that a second factor is asked once."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lablib.specs import LabError
from lablib.specs.paths import home

HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]*")
"""``[user@]host`` or a name of ~/.ssh/config; nothing that ssh would take for an option."""
PERSIST = "10m"
"""How long the shared connection stays after its last command."""
PATIENCE = 300.0
"""Seconds that a remote command may take."""


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches; keys, ports and jumps are ~/.ssh/config's ($LAB_SSH_CONFIG names another file)."""

    name: str

    def __post_init__(self) -> None:
        """Raises `LabError` for a name that ssh would read as something else."""
        if not HOST.fullmatch(self.name):
            raise LabError(f"ssh host {self.name!r}: write user@host, or a name of ~/.ssh/config")

    def url(self, path: str) -> str:
        """The address of a run that lies there, for `Run.open`."""
        return f"ssh://{self.name}{path}"

    def run(self, *words: str, stdin: bytes = b"") -> bytes:
        """Run a command there, words quoted; gives what it printed. Raises `LabError` with its last words."""
        return self.shell(shlex.join(words), stdin)

    def shell(self, line: str, stdin: bytes = b"") -> bytes:
        """Run a shell line there. Raises `LabError` where ssh fails or the line does."""
        try:
            done = subprocess.run([*self._ssh(), line], input=stdin, capture_output=True, timeout=PATIENCE, check=False)
        except FileNotFoundError:
            raise LabError("ssh is not installed on this machine") from None
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} gave no answer in {PATIENCE:.0f} s") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise LabError(f"{self.name}: {said[-1] if said else f'ended with {done.returncode}'}")
        return done.stdout

    def _ssh(self) -> list[str]:
        sockets = home() / "ssh"
        sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        shared = ["ControlMaster=auto", f"ControlPath={sockets}/%C", f"ControlPersist={PERSIST}"]
        config = os.environ.get("LAB_SSH_CONFIG")
        options = [word for pair in shared for word in ("-o", pair)]
        return ["ssh", *(["-F", str(Path(config))] if config else []), *options, "-T", self.name]
