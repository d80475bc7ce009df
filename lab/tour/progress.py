"""The tour's live table: each stage with its state, progress, ETA and prediction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cluster import stop
from lab.show import console
from lablib.explorers import show
from lablib.explorers.planned import planned
from lablib.runs import GLYPHS, Run, RunState
from lablib.specs.units import show_seconds

EVERY = 0.5
"""Seconds between looks at the runs."""


def remaining(run: Run) -> float:
    """Seconds that a run still takes: from its own progress where it has some, else from its plan."""
    state = run.state
    if state.finished:
        return 0.0
    eta = run.progress.get("eta_seconds")
    if state is RunState.RUNNING and eta is not None:
        return float(eta)
    plan = planned(run).seconds
    return max(0.0, plan.mid - run.seconds) if plan else 0.0


def board(runs: Mapping[str, Run]) -> Table:
    """One row a stage."""
    left = sum(remaining(run) for run in runs.values())
    table = Table(box=None, caption=f"about {show_seconds(left)} left" if left else "", caption_justify="left")
    for column in ("", "stage", "progress", "took", "predicted", "now"):
        table.add_column(column, justify="right" if column in ("took", "predicted") else "left")
    for label, run in runs.items():
        state, progress, plan = run.state, run.progress, planned(run).seconds
        total = progress.get("total") or 1
        done = total if state is RunState.COMPLETED else progress.get("done", 0)
        started = state not in (RunState.QUEUED, RunState.WAITING)
        table.add_row(
            GLYPHS[state],
            label,
            ProgressBar(total=total, completed=done, width=24),
            show_seconds(run.seconds) if started else "",
            show_seconds(plan.mid) if plan else "",
            _now(run, state),
        )
    return table


def _now(run: Run, state: RunState) -> str:
    if state is not RunState.RUNNING:
        return str(state)
    rows = run.rows()
    if not rows:
        return show.progress(run.progress) or "starting"
    last = rows[-1]
    return "  ".join(
        f"{key} {last[key]:.3g}"
        for key in ("loss", "reward", "accuracy", "tokens_per_second")
        if isinstance(last.get(key), float)
    )


def follow(runs: Mapping[str, Run]) -> None:
    """Show the chain until every run has finished. Ctrl-C asks them to save, waits, and raises KeyboardInterrupt."""
    try:
        with _display(runs) as update:
            while not all(run.state.finished for run in runs.values()):
                time.sleep(EVERY)
                update()
    except KeyboardInterrupt:
        halt(runs)
        raise


@contextmanager
def _display(runs: Mapping[str, Run]) -> Iterator[Callable[[], None]]:
    if console.is_terminal:
        with Live(board(runs), console=console, refresh_per_second=2, transient=True) as live:
            yield lambda: live.update(board(runs))
    else:
        yield _Lines(runs)


class _Lines:
    """For logs: a line when a stage changes state, and one every fifteen seconds."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self._runs, self._states, self._spoke = runs, dict.fromkeys(runs, RunState.QUEUED), time.monotonic()

    def __call__(self) -> None:
        for label, run in self._runs.items():
            state = run.state
            due = state is RunState.RUNNING and time.monotonic() - self._spoke > 15
            if (state is not self._states[label] and state is not RunState.WAITING) or due:
                took = show_seconds(run.seconds)
                detail = _now(run, state) if state is RunState.RUNNING else took
                left = show_seconds(sum(remaining(each) for each in self._runs.values()))
                console.print(
                    f"{GLYPHS[state]} {label:12} {state:10} {detail}  (about {left} left)",
                    markup=False,
                    highlight=False,
                )
                self._spoke = time.monotonic()
            self._states[label] = state


def halt(runs: Mapping[str, Run], patience: float = 60.0) -> None:
    """Ask every run of the chain to save and end, last stage first, and wait until they have."""
    console.print("\nSaving; every stage continues from here next time ...")
    for run in reversed(list(runs.values())):
        if not run.state.finished:
            stop(run)
    end = time.monotonic() + patience
    while time.monotonic() < end and not all(run.state.finished for run in runs.values()):
        time.sleep(EVERY)
