"""Fits the few constants of `bench/planner/runs.py` and `lablib.plan.goodput.SLOW` to whole published runs, and says how
well they do on families that the fit has not seen: ``python -m bench.planner.fit_runs TRUTH``.

Fitted are the middle of published over planned hours, and how far four in five lie from it on either side where the layout
is known, where it is assumed, and where the figures are second-hand. The files hold them rounded; run this again whenever
the step model's constants change, and copy ``SLOW`` over.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.planner import runs
from bench.planner.rows import Scored, Unplannable, read, with_archs
from lablib.plan import goodput
from lablib.plan.ranges import Range

KINDS = ("known", "assumed", "vague")


class Case(NamedTuple):
    """A published run and its plan without slow steps."""

    row: str
    family: str
    kind: str
    """"known" layout, "assumed" layout, or "vague": the size alone, or a second-hand or bounding figure of the hours."""
    published: float
    planned: float

    @property
    def log(self) -> float:
        """ln(published / planned)."""
        return math.log(self.published / self.planned)


class Constants(NamedTuple):
    """In logarithms: the middle, and the half-widths of the 80 % band below and above it by kind of row."""

    mid: float
    below: dict[str, float]
    above: dict[str, float]


def cases(truth: Path) -> list[Case]:
    """Every row that can be planned."""
    rows, _ = read(truth / "runs.csv")
    archs, _ = read(truth / "archs.csv")
    return list(_cases(with_archs(rows, archs)))


def _cases(rows: Iterable[dict[str, str]]) -> Iterator[Case]:
    for row in rows:
        try:
            published, _ = runs.hours_of(row)
            run = runs.run_of(row)
        except Unplannable:
            continue
        planned = runs.gpu_hours(run, Range.exactly(1.0)).mid
        yield Case(row["id"], row["family"], run.kind, published, planned)


def fit(found: Sequence[Case]) -> Constants:
    """Middle: the median of rows that are not vague. Widths: the 80th percentile of each side's distances, for each kind at
    least as wide as for the kind before it; a kind with under three rows on a side takes those of all that are not vague."""
    mid = float(np.median([case.log for case in found if case.kind != "vague"]))
    return Constants(mid, _widths(found, mid, -1), _widths(found, mid, 1))


def _widths(found: Sequence[Case], mid: float, sign: int) -> dict[str, float]:
    """By kind, how far four in five of those below (sign -1) or above (1) the middle lie from it."""
    apart = [(case.kind, sign * (case.log - mid)) for case in found if sign * (case.log - mid) >= 0]
    solid = [distance for kind, distance in apart if kind != "vague"]
    made: dict[str, float] = {}
    for kind in KINDS:
        own = [distance for name, distance in apart if name == kind]
        made[kind] = max(*made.values(), 0.0, float(np.quantile(own if len(own) >= 3 else solid, 0.8)))
    return made


def leave_one_out(truth: Path) -> list[Scored]:
    """Each family's rows with constants fitted on the other families."""
    found = cases(truth)
    return [
        _scored(case, constants)
        for family in sorted({case.family for case in found})
        for constants in [fit([case for case in found if case.family != family])]
        for case in found
        if case.family == family
    ]


def _scored(case: Case, constants: Constants) -> Scored:
    predicted = case.planned * math.exp(constants.mid)
    low, high = predicted * math.exp(-constants.below[case.kind]), predicted * math.exp(constants.above[case.kind])
    return Scored(case.row, case.family, predicted, case.published, case.kind, low, high)


def main(truth: str) -> None:
    """Print the constants, and the errors in the fit and out of it."""
    found = cases(Path(truth))
    constants = fit(found)
    for kind in KINDS:
        print(f"{kind:8} ×{math.exp(constants.mid):.3f}  {math.exp(-constants.below[kind]):.3f} to {math.exp(constants.above[kind]):.3f} around it")  # fmt: skip
    print(f"in the files now: SLOW {goodput.SLOW}, assumed {runs.LAYOUT_ASSUMED}, vague {runs.VAGUE}")
    for name, scored in (("in the fit", [_scored(case, constants) for case in found]), ("family left out", leave_one_out(Path(truth)))):  # fmt: skip
        for kinds in (("known",), ("known", "assumed"), KINDS):
            picked = [one for one in scored if one.note in kinds]
            apart = [abs(one.predicted / one.published - 1) for one in picked]
            inside = [(one.low or 0) <= one.published <= (one.high or 0) for one in picked]
            print(f"{name:16} {'+'.join(kinds):22} {len(picked)} rows, median {np.median(apart):.1%}, in the band {np.mean(inside):.0%}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
