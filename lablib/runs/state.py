"""How a run is, judged from what its processes say and what its scheduler sees. Pure, so that every case has a test."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from lablib.runs.heartbeat import Pulse, alive, same_machine
from lablib.runs.orders import UNKNOWN, View

STOPPED = 75
"""Exit status of a rank that was asked to stop and saved first (EX_TEMPFAIL: try again)."""
HOPELESS = 78
"""Exit status of a rank that failed in a way that another attempt would repeat (EX_CONFIG)."""

ENDED = ("completed", "stopped", "failed", "lost")
"""Events that a process leaves at its end, or another one for it."""


class RunState(StrEnum):
    """How a run is. `lost` means its process died without a word; `stopped` that it saved on request."""

    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    STALLED = "stalled"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"

    @property
    def finished(self) -> bool:
        """Whether nothing more will be written without a new submission."""
        return self in (RunState.COMPLETED, RunState.STOPPED, RunState.FAILED, RunState.LOST)


GLYPHS = {
    "queued": "◌",
    "waiting": "◔",
    "running": "●",
    "stalled": "◐",
    "completed": "✓",
    "stopped": "■",
    "failed": "✗",
    "lost": "☠",
}


def of_ranks(pulses: Sequence[Pulse], stale: bool = False) -> RunState:
    """What the ranks of one attempt say of themselves; `stale` where no beat changed while one watched."""
    codes = [pulse.exit for pulse in pulses]
    if any(code not in (None, 0, STOPPED) for code in codes):
        return RunState.FAILED
    if codes and all(code is not None for code in codes):
        return RunState.STOPPED if STOPPED in codes else RunState.COMPLETED
    if any(pulse.exit is None and same_machine(pulse) and not alive(pulse) for pulse in pulses):
        return RunState.LOST
    if stale:
        return RunState.STALLED
    if not pulses:
        return RunState.QUEUED
    return RunState.WAITING if pulses[0].phase == "waiting" else RunState.RUNNING


ENDS = {"completed": RunState.COMPLETED, "stopped": RunState.STOPPED, "failed": RunState.FAILED}
"""A run at its end (`cluster.settle`) is what was decided then, whatever its last ranks could still write."""


def in_hand(ranks: RunState, attempt_known: bool) -> RunState:
    """While a supervisor or Slurm has the run, and has not settled it: an attempt that ended is not the run's end."""
    if not attempt_known:
        return RunState.QUEUED
    if ranks.finished and ranks is not RunState.COMPLETED:
        return RunState.QUEUED
    return ranks


def with_view(ranks: RunState, seen: View, attempt_known: bool, silent: bool = False) -> RunState:
    """The ranks' word together with the scheduler's, for a run that is not settled.

    What ranks wrote of their end stands; where they could not (killed, node gone, cancelled), the scheduler's final
    state decides, and a job that waits again is queued whatever its last attempt said. One that the scheduler has
    forgotten is lost once its ranks are `silent`.
    """
    if seen.pending:
        return RunState.WAITING if seen.reason.startswith("Dependency") else RunState.QUEUED
    if not seen.final:
        return in_hand(ranks, attempt_known)
    if attempt_known and ranks in (RunState.COMPLETED, RunState.STOPPED, RunState.FAILED):
        return ranks
    if seen.state == UNKNOWN:
        return RunState.LOST if silent else in_hand(ranks, attempt_known)
    if seen.state == "COMPLETED":
        return RunState.COMPLETED if ranks is RunState.COMPLETED else RunState.LOST
    if seen.state == "CANCELLED":
        return RunState.STOPPED
    return RunState.FAILED
