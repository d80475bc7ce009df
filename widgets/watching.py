"""`watch`: runs as a live screen, from their folders alone, so that it can be opened again after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lablib.explorers import Monitor, View
from lablib.runs import Run
from lablib.specs import LabError
from widgets.board import Board
from widgets.poller import Poller

POINTS = 400
"""Points of one series on a live screen: as many as it has pixels, so that a snapshot stays small."""
_poller = Poller()


def _unreadable(run: Run, error: Exception) -> View:
    return View(
        title=run.id, subtitle="cannot be read", failure=str(error), notes=("The last look failed; the next follows.",)
    )


class Watch(Board):
    """A `Board` that follows runs; what it shows is always the whole state of the moment."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Look once now; `watch` sees to the rest."""
        self._monitors = [Monitor(run, POINTS) for run in runs]
        super().__init__(self._views())

    def _views(self) -> list[View]:
        return [self._view(monitor) for monitor in self._monitors]

    @staticmethod
    def _view(monitor: Monitor) -> View:
        try:
            return monitor.view()
        except (OSError, ValueError, LabError) as error:  # a folder half copied, a disk away: say so, look again
            return _unreadable(monitor.run, error)

    def refresh(self) -> bool:
        """Show the state of now; False once every run has finished."""
        finished = all(monitor.run.state.finished for monitor in self._monitors)
        self.show_views(self._views())
        return not finished


def watch(runs: Run | str | Path | Sequence[Run | str | Path]) -> Watch:
    """A live screen of one run or several, given as runs, ids or folders.

    It returns at once, goes on moving while cells run, and never touches the job: close it, restart the kernel, call
    it again. Raises `LabError` where there is no run.
    """
    several = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    if not several:
        raise LabError("watch needs at least one run; `lab jobs` lists them")
    board = Watch([run if isinstance(run, Run) else Run.open(run) for run in several])
    _poller.watch(board)
    return board
