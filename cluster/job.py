"""`Job`: what runs on the other side. It is pickled by reference, waits for its inputs, then executes the recipe."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment

from cluster import components, health, snapshot
from lablib.runs import Recorder, Run, RunState, signals
from lablib.specs import LabError, Shared
from lablib.stages import execute

POLL = 0.5
"""Seconds between looks at a predecessor."""


class Job:
    """Callable of one run; every rank of the job calls it in its own process."""

    def __init__(self, run: Path) -> None:
        """What it waits for, and whether it reports, stand in the run's order."""
        self.run = str(run)

    def __call__(self) -> str:
        """Do the work and return the run's final state; exceptions are recorded in the run and raised."""
        signals.catch()  # submitit's own handlers would requeue the job, also while it reports
        rank = _join_the_others()
        recorder = Recorder(Path(self.run), rank)
        order = Run(recorder.path).order
        with recorder.working("waiting" if order.after or order.behind else "running"):
            snapshot.check(recorder.path, order.code)
            if self._inputs_are_ready(recorder):
                recorder.enter("running")
                health.examine(recorder)
                os.environ.update(components.addresses(Run(recorder.path)))
                execute(recorder.recipe, recorder)
        helps = isinstance(recorder.recipe, Shared) and recorder.recipe.helps
        if recorder.is_main and order.report and not helps and not recorder.stop_requested:
            from lablib.report import export_chain

            export_chain(Run(recorder.path))
        return str(Run(recorder.path).state)

    def checkpoint(self) -> DelayedSubmission:
        """How a requeued job begins again: the stage resumes from the run folder."""
        return DelayedSubmission(self)

    def _inputs_are_ready(self, recorder: Recorder) -> bool:
        run = Run(recorder.path)
        if run.order.behind:
            _ended(Run(run.path.parent / run.order.behind), recorder)
        return all(_completed(Run(run.path.parent / name), recorder) for name in run.order.after)


def _ended(run: Run, recorder: Recorder) -> RunState:
    """Wait until a run is at an end of whatever kind, or this job is asked to stop."""
    while not (state := run.state).finished and not recorder.stop_requested:
        time.sleep(POLL)
    return state


def _completed(run: Run, recorder: Recorder) -> bool:
    """Wait for a predecessor. False where this job is asked to stop, or where the other one was and this stops with it.

    Raises `LabError` where the predecessor failed or was lost.
    """
    state = _ended(run, recorder)
    if state is RunState.STOPPED:
        recorder.request_stop()
    if recorder.stop_requested:
        return False
    if state is not RunState.COMPLETED:
        reason = run.failure.partition("\n")[0]
        raise LabError(
            f"it needs run {run.id}, which is {state}{': ' + reason if reason else ''}; resume that one, then this"
        )
    return True


def _join_the_others() -> int:
    """Export torch.distributed's rendezvous (without touching CUDA_VISIBLE_DEVICES) and return this process's rank."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        os.environ.pop(name, None)
    here = TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if here.world_size == here.local_world_size:
        os.environ["MASTER_ADDR"] = "127.0.0.1"  # one node: host names need not resolve
    rank: Any = here.rank
    return int(rank)
