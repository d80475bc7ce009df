"""`Guard`: notices from outside that a job hangs, which its own processes cannot be trusted to.

A stopped rank or a collective that nobody joins leaves every process alive and silent. Progress, metrics and events are
files that move while a stage works; where none has for the profile's `hang` seconds, the guard has every rank write its
stacks (SIGUSR1, which `Recorder` hands to faulthandler) and ends the ranks, so that the run starts again from its last
checkpoint. ``python -m cluster.guard RUN JOB`` watches a Slurm job from its batch script.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import components
from cluster.slurm import query
from lablib.runs import Run, jsonl
from lablib.specs import LabError

STACKS = 3.0
"""Seconds that ranks get to write their stacks."""
SETTLING = 15.0
"""Seconds before its time limit at which a Slurm job's ranks are ended: Python starts, and the job is queued again."""
AGAIN = 10.0
"""Seconds after which ranks that still live are told to end once more."""
UNANSWERED = 5.0
"""Seconds until Slurm is asked for the time limit again, where it gave no answer."""
SIGNS = ("progress.json", "events.jsonl", "metrics")


class Guard:
    """Looks at a run's files; `hung` says whether they have stood still for too long, as this process counts."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the patience from the run's order."""
        self.run, self.patience, self._clock = run, run.order.profile.hang, clock
        self._signs, self._since = self._look(), clock()

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for name in SIGNS:
            path = self.run.path / name
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                try:
                    stat = file.stat()
                except FileNotFoundError:
                    continue
                found.append((file.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def hung(self) -> bool:
        """Whether nothing has moved for `patience` seconds; a job that waits for another run does not hang."""
        signs, now = self._look(), self._clock()
        if signs != self._signs or any(pulse.phase == "waiting" for pulse in self.run.pulses):
            self._signs, self._since = signs, now
        return now - self._since > self.patience

    def wrong(self) -> str:
        """Why the attempt must end ("component" where one ended, "hang"), left as an event too; empty where all is well, or
        where the folder cannot be read just now."""
        try:
            dead, hung = components.ended(self.run), self.hung()
        except OSError:
            return ""
        if dead:
            say(self.run, "component", name=dead)
        elif hung:
            say(self.run, "hang", seconds_silent=self._clock() - self._since, stacks="logs/stacks-*.txt")
        return "component" if dead else "hang" if hung else ""


def say(run: Run, kind: str, **details: Any) -> None:
    """Leave an event, where it can be written: ranks that a full disk stopped must be ended all the same."""
    with suppress(OSError):
        jsonl.event(run.path, kind, **details)


def end(why: str, signal_ranks: Callable[[str], object]) -> None:
    """End the ranks; those that hang are told by signal name to write their stacks first."""
    if why == "hang":
        signal_ranks("USR1")
        time.sleep(STACKS)
    signal_ranks("KILL")


def main(folder: str, job: str) -> None:
    """Watch the ranks, a Slurm job's first step after its components; the batch script ends this process with the job."""
    run = Run(Path(folder))
    step = f"{job}.{len(run.order.components)}"  # KILL to the whole job would cancel it

    def signal_ranks(name: str) -> bool:
        return subprocess.run(["scancel", f"--signal={name}", step], check=False).returncode == 0

    guard, every = Guard(run), min(2.0 if run.order.components else 10.0, run.order.profile.hang / 10)
    limit, owed = Deadline(job, run.order.profile.signal_seconds), False
    while not (why := guard.wrong() or limit.passed()):
        # A warning stays owed where scancel fails: the controller may restart, the step not be there yet.
        owed = (owed or limit.warns()) and not signal_ranks("USR2")
        time.sleep(min(every, max(0.5, limit.seconds)))
    if why == "overdue":
        say(run, "overdue", seconds_left=limit.reserve)
    end(why, signal_ranks)
    while True:  # the step may not have heard: a scancel can fail while the controller restarts
        time.sleep(AGAIN)
        signal_ranks("KILL")


class Deadline:
    """Two moments before a job's time limit: when its ranks are told to save, to the second where Slurm looks every half a
    minute, and the last one at which ranks that still live are ended, so that the batch script can settle before Slurm ends
    it too."""

    def __init__(self, job: str, signal_seconds: float) -> None:
        """Leaves half of the time between the warning and the end to settle, at most `SETTLING`."""
        self._job, self._signal, self.reserve = job, signal_seconds, min(SETTLING, signal_seconds / 2)
        self._warned, self._end = False, math.inf
        self._ask()

    @property
    def seconds(self) -> float:
        """Until the next of the two, or until Slurm is asked again."""
        return min(self._moment, self._asks_again) - time.monotonic()

    @property
    def _moment(self) -> float:
        return self._end - (self.reserve if self._warned else self._signal)

    def warns(self) -> bool:
        """Whether it is time to tell the ranks; true once."""
        if self._warned or not self._comes():
            return False
        self._warned = True
        return True

    def passed(self) -> str:
        """ "overdue" once the ranks, which were told, have had their time."""
        return "overdue" if self._warned and self._comes() else ""

    def _comes(self) -> bool:
        """Whether the next moment is here; Slurm is asked again first, for limits are lengthened."""
        if self.seconds > 0:
            return False
        self._ask()
        return self._moment <= time.monotonic()

    def _ask(self) -> None:
        """Slurm's word on the end; where it has none, what it said before holds and it is asked again."""
        now = time.monotonic()
        try:
            self._end, self._asks_again = now + query.seconds_left(self._job), math.inf
        except LabError:
            self._asks_again = now + UNANSWERED


if __name__ == "__main__":
    main(*sys.argv[1:])
