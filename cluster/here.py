"""Runs on this machine: a detached supervisor each, which `cluster.launch` leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cluster import child, environment
from lablib.runs import Run, heartbeat
from lablib.specs import LabError


def start(run: Run, attempt: int, code: Path) -> None:
    """Start attempt number `attempt` and those that follow it. Raises `LabError` where the supervisor does not start."""
    (run.path / "logs").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cluster.launch", str(run.path), str(_gpus(run.recipe.gpus)), str(attempt)]
    with (run.path / "logs" / "launch.log").open("ab") as log:
        status, _ = child.finish(command, environment.of(run, code), log=log)
    if status:
        said = (run.path / "logs" / "launch.log").read_text(errors="replace").strip().splitlines()
        raise LabError(f"run {run.id} could not be started: {said[-1] if said else status}")


def stop(run: Run, now: bool = False) -> int:
    """Ask the run's processes to save and return, or end them `now`; gives how many were asked. Raises `LabError` for a
    run of another machine."""
    return _signal(run, signal.SIGKILL if now else signal.SIGTERM)


def end_attempt(run: Run) -> None:
    """Have the processes save as at the end of their time, after which the supervisor starts them again."""
    _signal(run, signal.SIGUSR2)


def _signal(run: Run, number: signal.Signals) -> int:
    live = [pulse for pulse in run.pulses if pulse.exit is None]
    if any(not heartbeat.same_machine(pulse) for pulse in live):
        raise LabError(f"run {run.id} works on {live[0].host}; stop it there")
    return sum(_told(pulse.pid, number) for pulse in live if heartbeat.alive(pulse))


def _told(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended since it was looked at
        return False
    return True


def _gpus(wanted: int) -> int:
    """How many of this machine's GPUs a job takes: one a process where there are that many, else none (CPU)."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return 0
    return wanted if len(listed.stdout.splitlines()) >= wanted else 0
