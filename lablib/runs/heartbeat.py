"""Heartbeats: one small file a process, from which anybody can tell how a run is.

A shared filesystem must not suffer from them: one process of each node, the first, rewrites its file every ten seconds;
the others write theirs when they start, change their phase and end.

On the machine where it runs, a dead process is told at once by its pid and start time. From elsewhere a process is
judged by whether its counter moves while one watches; clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lablib.specs import memory, write_atomic

INTERVAL = 10.0
"""Seconds between beats of a node."""
STALE = 45.0
"""Seconds without a change, as the watcher's own clock counts, after which a process counts as stalled."""


@dataclass(frozen=True)
class Pulse:
    """What one process says of itself."""

    host: str
    boot: str
    pid: int
    born: str
    """Kernel start time of the process, so that a reused pid is not mistaken for it."""
    rank: int
    phase: str
    beat: int = 0
    started: float = 0.0
    at: float = 0.0
    peak_gib: float = 0.0
    exit: int | None = None
    """None while it runs; 0 completed, 75 stopped on request, other values failed."""
    reason: str = ""
    attempt: int = 0
    """Which start of the run's ranks this process belongs to."""
    machine: str = ""
    """The machine's own id; empty where it has none."""

    @classmethod
    def mine(cls, rank: int, phase: str, attempt: int = 0) -> Pulse:
        """The first one of this process."""
        me, now = os.getpid(), time.time()
        return cls(socket.gethostname(), boot_id(), me, born(me), rank, phase, 0, now, now, attempt=attempt, machine=machine_id())  # fmt: skip


def boot_id() -> str:
    """What the kernel calls this boot; empty where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def machine_id() -> str:
    """What the machine is called by itself since it was installed (machine-id(5)); empty where it has no such name."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def born(pid: int) -> str:
    """Kernel start time of a living process; empty where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def exists(pid: int) -> bool:
    """Whether any process of this machine has the pid now; it need not be the one that had it before."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def same_machine(pulse: Pulse) -> bool:
    """Whether the process runs, or ran, on this machine: since its boot, or by the machine's id before it.

    A host name alone decides nothing, for two machines of one name may share a filesystem. Machines that were copied with
    their id and given one name would be taken for each other.
    """
    if pulse.host != socket.gethostname():
        return False
    return pulse.boot == boot_id() or (pulse.machine != "" and pulse.machine == machine_id())


def alive(pulse: Pulse) -> bool:
    """Whether the very process still exists; only meaningful on its own machine. None outlives a boot."""
    if pulse.boot != boot_id():
        return False
    if not Path("/proc/self/stat").exists():
        return exists(pulse.pid)
    return bool(pulse.born) and born(pulse.pid) == pulse.born


def read_all(run: Path) -> list[Pulse]:
    """The pulses of a run, rank 0 first."""
    pulses = []
    for file in (run / "heartbeat").glob("[!.]*.json"):
        try:
            pulses.append(Pulse(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(pulses, key=lambda pulse: pulse.rank)


class Heart:
    """Writes a process's pulse from a daemon thread until `stop`."""

    def __init__(self, run: Path, rank: int, phase: str, attempt: int = 0, leads: bool = True) -> None:
        """Writes the first beat at once; only the process that `leads` its node goes on writing by the clock."""
        self._file = run / "heartbeat" / f"{rank}.json"
        self.pulse = Pulse.mine(rank, phase, attempt)
        self._lock, self._done = threading.Lock(), threading.Event()
        self.beat()
        if leads:
            threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def beat(self, **changes: Any) -> None:
        """Write now, with `changes` to the pulse's fields."""
        with self._lock:
            peak = max(self.pulse.peak_gib, memory.peak_gib())
            self.pulse = replace(self.pulse, beat=self.pulse.beat + 1, at=time.time(), peak_gib=peak, **changes)
            write_atomic(self._file, json.dumps(asdict(self.pulse)))

    def _live(self) -> None:
        while not self._done.wait(INTERVAL):
            try:
                self.beat()
            except OSError:
                continue  # a full disk must not end the run; the next beat tries again

    def stop(self, code: int, reason: str = "") -> None:
        """The last beat, with the exit status."""
        self._done.set()
        self.beat(exit=code, reason=reason)
