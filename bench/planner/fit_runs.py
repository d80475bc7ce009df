"""Fits the few constants of `bench/planner/runs.py` and `lablib.plan.goodput.SLOW` to whole published runs, and says how
well they do on families that the fit has not seen: ``python -m bench.planner.fit_runs TRUTH``.

Fitted are the middle of published over planned hours, and the band around it. The band is of families that the middle
has not seen: each family's distances are from the middle of the others, and the band ends at their first and ninth
decile as a new row would find them (the k-th of n distances stands for k/(n+1)), so that it is not too narrow for
running on the rows that set it. The files hold the figures rounded; run this again whenever the step model's constants
change, and copy ``SLOW`` and ``BANDS`` over. The left-out figures leave a family out of all of that.
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
from bench.planner.scores import bands
from lablib.plan import goodput

TAILS = (0.1, 0.9)
"""Where an 80 % band ends."""


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
    """In logarithms: the middle, and the band's lower and upper end from it by `group`."""

    mid: float
    bands: dict[str, tuple[float, float]]


def group(case: Case) -> str:
    """Bands are of two widths: of first-hand figures, and of vague ones. A known layout has shown no narrower one."""
    return "vague" if case.kind == "vague" else "solid"


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
        planned = runs.gpu_hours(run, slow=1.0).mid
        yield Case(row["id"], row["family"], run.kind, published, planned)


def fit(found: Sequence[Case]) -> Constants:
    """Middle: the median of first-hand rows. Bands: see the module; that of vague rows holds that of the others.

    A group of fewer than nine rows has no deciles of its own and takes those of all rows."""
    apart = [(group(case), case.log - _middle([one for one in found if one.family != case.family])) for case in found]
    low, high = _ends([distance for name, distance in apart if name == "solid"], [distance for _, distance in apart])
    vague = _ends([distance for name, distance in apart if name == "vague"], [distance for _, distance in apart])
    return Constants(_middle(found), {"solid": (low, high), "vague": (min(low, vague[0]), max(high, vague[1]))})


def _middle(found: Sequence[Case]) -> float:
    solid = [case.log for case in found if group(case) == "solid"]
    return float(np.median(solid or [case.log for case in found] or [0.0]))


def _ends(own: Sequence[float], everyone: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(own if len(own) >= 9 else everyone, TAILS, method="weibull")
    return min(0.0, float(low)), max(0.0, float(high))


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
    low, high = (predicted * math.exp(end) for end in constants.bands[group(case)])
    return Scored(case.row, case.family, predicted, case.published, case.kind, low, high)


def main(truth: str) -> None:
    """Print the constants, and the errors in the fit and out of it."""
    found = cases(Path(truth))
    constants = fit(found)
    for name, (low, high) in constants.bands.items():
        print(f"{name:8} ×{math.exp(constants.mid):.3f}  {math.exp(low):.3f} to {math.exp(high):.3f} around it")
    print(f"in the files now: SLOW {goodput.SLOW}, {', '.join(f'{name} {band}' for name, band in runs.BANDS.items())}")
    for name, scored in (("in the fit", [_scored(case, constants) for case in found]), ("family left out", leave_one_out(Path(truth)))):  # fmt: skip
        for kinds in (("known",), ("known", "assumed"), ("known", "assumed", "vague")):
            picked = [one for one in scored if one.note in kinds]
            apart = [abs(one.predicted / one.published - 1) for one in picked]
            band = bands(picked)
            print(f"{name:16} {'+'.join(kinds):22} {len(picked)} rows, median {np.median(apart):.1%}, in the band {band['band80_coverage']:.0%}, interval score {band['interval_score']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
