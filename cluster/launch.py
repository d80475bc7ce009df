"""``python -m cluster.launch FOLDER GPUS``: hand one run on this machine to a supervisor, then leave.

The supervisor starts the run's processes under submitit's local executor, watches that they do not hang, and starts them
again as `cluster.settle` decides. It lives in a session of its own and is nobody's child, so neither Ctrl-C in a
terminal nor the end of a notebook kernel reaches it, and no kernel keeps a zombie of it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster import components
from cluster.guard import Guard, end
from cluster.job import Job
from cluster.settle import settle
from lablib.runs import Run, heartbeat, jsonl, orders
from lablib.specs import write_atomic

FOREVER_MINUTES = 60 * 24 * 30
"""submitit's local executor insists on a time limit; a local run has none but its profile's."""
POLL = 0.2
PAUSE = 1.0
"""Seconds before the first new attempt; each further one in a row waits twice as long."""


def launch(run: Run, gpus: int, attempt: int) -> None:
    """Leave a supervisor behind that has recorded itself; returns in the caller's process only."""
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        os.read(read, 1)  # the record is written, or the supervisor is gone
        return
    os.setsid()
    pulse = heartbeat.Pulse.mine(-1, "submitted")
    held = orders.Record(job_id=str(pulse.pid), attempts_before=attempt, pulse=asdict(pulse))
    write_atomic(run.path / "scheduler.json", held.to_json())
    os.close(write)
    os.close(read)
    supervise(run, gpus, attempt)


def supervise(run: Run, gpus: int, attempt: int) -> None:
    """Attempt after attempt until the run is settled."""
    pause = PAUSE
    while True:
        os.environ["LAB_ATTEMPT"] = str(attempt)
        _attempt(run, gpus)
        if settle(run, attempt).outcome != "again":
            return
        time.sleep(pause)
        attempt, pause = attempt + 1, min(60.0, 2 * pause)


def _attempt(run: Run, gpus: int) -> None:
    """One start of the run's processes, to their end."""
    import submitit

    executor = submitit.LocalExecutor(run.path / "logs")
    executor.update_parameters(
        tasks_per_node=run.recipe.gpus, gpus_per_node=gpus, timeout_min=FOREVER_MINUTES, stderr_to_stdout=True
    )
    servers = components.start(run)
    job: Any = executor.submit(Job(run.path))
    guard, begun, limit = Guard(run), time.monotonic(), run.order.profile.time
    told, overdue = set[int](), False
    while job._process.poll() is None:
        if why := guard.wrong():
            end(why, lambda name: _tell(run, signal.Signals[f"SIG{name}"]))
        left = limit + begun - time.monotonic() if limit else math.inf
        if left < run.order.profile.signal_seconds:  # a rank may be born after the others were told
            told |= _tell(run, signal.SIGUSR2, told)
        if left < 0:
            if not overdue:
                jsonl.event(run.path, "overdue", seconds_left=0.0)
            overdue = True
            _tell(run, signal.SIGKILL)
        time.sleep(POLL)
    components.end(servers)


def _tell(run: Run, number: signal.Signals, but: Set[int] = frozenset()) -> set[int]:
    """Signal the attempt's live processes `but` those; the ones that were."""
    attempt, told = int(os.environ["LAB_ATTEMPT"]), set()
    for pulse in run.pulses:
        if pulse.attempt == attempt and pulse.exit is None and pulse.pid not in but and heartbeat.alive(pulse):
            with suppress(ProcessLookupError):  # it may end between the look and the signal
                os.kill(pulse.pid, number)
            told.add(pulse.pid)
    return told


if __name__ == "__main__":
    folder, devices, first = sys.argv[1:]
    launch(Run(Path(folder)), int(devices), int(first))
