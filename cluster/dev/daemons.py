"""Daemons by name: started in sessions of their own, remembered by pid, ended and only ended if they are still ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lablib.runs import heartbeat
from lablib.specs import LabError, write_atomic


class Daemons:
    """The background processes of one folder; ``run/NAME.pid`` holds a pid and the kernel's start time of it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` is what every daemon gets."""
        self.folder, self._environment = folder, environment

    def start(self, name: str, *command: str) -> None:
        """Start one unless it lives; its output goes to ``log/NAME.out``."""
        if self.alive(name):
            return
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self._environment), start_new_session=True
            )  # fmt: skip
        write_atomic(self._file(name), f"{process.pid} {heartbeat.born(process.pid)}")

    def wait_for(self, name: str, ready: Callable[[], bool], seconds: float = 90.0) -> None:
        """Return once `ready`. Raises `LabError` with the end of the daemon's log where it is not in time."""
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise LabError(f"{name} did not come up in {seconds:.0f} s:\n{self._last_words(name)}")
            time.sleep(0.05)

    def alive(self, name: str) -> bool:
        """Whether the very process that was started still lives."""
        pid, born = self._known(name)
        return bool(born) and heartbeat.born(pid) == born

    def kill(self, name: str, number: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> None:
        """End one and wait until it is gone; after `patience` seconds it is killed."""
        pid, _ = self._known(name)
        if self.alive(name):
            os.kill(pid, number)
        end = time.monotonic() + patience
        while self.alive(name):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Those that were started and not ended."""
        return sorted(file.stem for file in (self.folder / "run").glob("*.pid") if not file.name.endswith(".own.pid"))

    def _file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def _known(self, name: str) -> tuple[int, str]:
        try:
            pid, _, born = self._file(name).read_text().partition(" ")
        except FileNotFoundError:
            return 0, ""
        return int(pid), born

    def _last_words(self, name: str) -> str:
        logs = [file for file in (self.folder / "log").glob(f"{name}*") if file.is_file()]
        return "\n".join(line for file in logs for line in file.read_text(errors="replace").splitlines()[-8:])
