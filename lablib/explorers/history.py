"""Predicted against measured, kept for every finished run: how wrong the lab's own plans have been.

Nothing is stored beside the runs: each folder has the estimate that was registered before its start and what it then took.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from lablib.explorers.planned import Span, planned
from lablib.runs import Run, RunState
from lablib.specs import LabError
from lablib.specs.paths import runs_root

if TYPE_CHECKING:
    import pandas as pd

MEASURES = (
    ("seconds", "seconds", "seconds"),
    ("memory", "gib", "peak_gib"),
    ("dollars", "dollars", "dollars"),
    ("tokens/s", "rate", "tokens_per_second"),
    ("loss", "loss", "loss"),
)
"""Name, field of the plan, field of the outcome."""


class Outturn(NamedTuple):
    """One planned quantity of one completed run."""

    run: str
    stage: str
    ended: str
    """UTC day and time."""
    what: str
    """One of `MEASURES`."""
    predicted: float
    low: float
    high: float
    actual: float

    @property
    def ape(self) -> float:
        """Absolute error over what was measured, percent."""
        return abs(self.predicted / self.actual - 1) * 100

    @property
    def inside(self) -> bool | None:
        """Whether the band held it; None where the plan gave one number."""
        return None if self.low == self.high else self.low <= self.actual <= self.high

    def to_dict(self) -> dict[str, Any]:
        """All fields with `ape` and `inside`."""
        return {**self._asdict(), "ape": self.ape, "inside": self.inside}


class Errors(NamedTuple):
    """How one stage's predictions of one quantity have done."""

    stage: str
    what: str
    runs: int
    median_ape: float
    inside: int
    banded: int
    """Runs whose plan gave a band, of which `inside` were in it."""


def history(root: Path | None = None) -> list[Outturn]:
    """Every planned quantity of every completed run below `root` ($LAB_RUNS or ./runs) that was also measured, oldest
    first. Runs that ended early or cannot be read are left out: they did not do what was planned."""
    base = root or runs_root()
    folders = sorted({file.parent for pattern in ("*/recipe.json", "*/*/recipe.json") for file in base.glob(pattern)})
    made = [row for folder in folders for row in _rows(Run(folder.absolute()))]
    return sorted(made, key=lambda row: row.ended)


def _rows(run: Run) -> Iterator[Outturn]:
    try:
        if run.state is not RunState.COMPLETED or not run.estimate:
            return
        stage, plan, outcome = run.recipe.stage, planned(run), run.outcome
    except (LabError, ValueError):
        return
    ended = max((event["time"] for event in run.events() if event["kind"] == "completed"), default=0.0)
    for what, field, measured in MEASURES:
        span: Span | None = getattr(plan, field)
        actual = getattr(outcome, measured)
        if span is not None and actual and span.mid:
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(ended))
            yield Outturn(run.id, stage, when, what, span.mid, span.low, span.high, float(actual))


def by_stage(rows: Iterable[Outturn]) -> list[Errors]:
    """Median errors of each stage and quantity, and how often the band held."""
    groups: dict[tuple[str, str], list[Outturn]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.what), []).append(row)
    return [
        Errors(
            stage=stage,
            what=what,
            runs=len(group),
            median_ape=median(row.ape for row in group),
            inside=sum(row.inside is True for row in group),
            banded=sum(row.inside is not None for row in group),
        )
        for (stage, what), group in sorted(groups.items())
    ]


def frame(root: Path | None = None) -> pd.DataFrame:
    """`history` as a data frame."""
    import pandas as pd

    return pd.DataFrame([row.to_dict() for row in history(root)])
