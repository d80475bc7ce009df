"""Figures of a field: errors over all rows and by source, verdicts, bands. Percent for errors, fractions for shares.

A figure over no rows is None (null in JSON), never nan.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta, spearmanr

from bench.planner.table import Scored

BAND = 0.8
"""What the plans' bands claim to cover."""
_RARE = 0.05
"""Share outside a two-sided 95 % interval."""


def measured(scored: Iterable[Scored]) -> list[Scored]:
    """Those with a published figure and a finite prediction."""
    return [s for s in scored if math.isfinite(s.predicted) and math.isfinite(s.published) and s.published > 0]


def errors(scored: Sequence[Scored]) -> dict[str, Any]:
    """rows, median_ape (percent), within_10 and within_20 (fractions), bias (median of predicted / published) and rank
    (Spearman's correlation; None below three rows)."""
    pairs = np.array([(s.predicted, s.published) for s in measured(scored)]).reshape(-1, 2)
    if not len(pairs):
        return {"rows": 0, "median_ape": None, "within_10": None, "within_20": None, "bias": None, "rank": None}
    ratio = pairs[:, 0] / pairs[:, 1]
    apart = 100 * np.abs(ratio - 1)
    return {
        "rows": len(pairs),
        "median_ape": float(np.median(apart)),
        "within_10": float(np.mean(apart <= 10)),
        "within_20": float(np.mean(apart <= 20)),
        "bias": float(np.median(ratio)),
        "rank": _rank(pairs),
    }


def _rank(pairs: np.ndarray) -> float | None:
    if len(pairs) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant column has no rank correlation
        rank = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
    return rank if math.isfinite(rank) else None


def by_source(
    scored: Sequence[Scored], figures: Callable[[Sequence[Scored]], dict[str, Any]] = errors
) -> dict[str, dict[str, Any]]:
    """The figures of each source, those with most rows first."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.source, []).append(one)
    return {name: figures(groups[name]) for name in sorted(groups, key=lambda name: (-len(groups[name]), name))}


def memory(scored: Sequence[Scored]) -> dict[str, Any]:
    """Errors of the peak, and the verdicts: rows known to run out of memory that the plan calls fitting (`false_fits` of
    `oom_rows`), and rows that ran which it calls unfit (`false_unfits`, and their share of the rows with a verdict)."""
    return {**_verdicts(scored), "by_source": by_source(scored, _verdicts)}


def _verdicts(scored: Sequence[Scored]) -> dict[str, Any]:
    ran = [s for s in scored if s.kind != "oom"]
    ooms = [s for s in scored if s.kind == "oom"]
    judged = [s for s in ran if s.fits is not None]
    unfit = sum(s.fits is False for s in judged)
    return {
        **errors(ran),
        "oom_rows": len(ooms),
        "false_fits": sum(s.fits is not False for s in ooms),
        "false_unfits": unfit,
        "false_unfit_share": unfit / len(judged) if judged else None,
    }


def throughput(scored: Sequence[Scored]) -> dict[str, Any]:
    """Errors of tokens/s/GPU; with the plan's band where it gives one."""
    return {**errors(scored), **bands(scored), "by_source": by_source(scored)}


def runs(scored: Sequence[Scored]) -> dict[str, Any]:
    """Errors of GPU-hours and how good the band is."""
    return {**errors(scored), **bands(scored), "by_source": by_source(scored, _errors_and_bands)}


def _errors_and_bands(scored: Sequence[Scored]) -> dict[str, Any]:
    return {**errors(scored), **bands(scored)}


def bands(scored: Sequence[Scored]) -> dict[str, Any]:
    """How good the 80 % bands are.

    `band80_coverage` with its exact 95 % interval (Clopper and Pearson 1934); `consistent_with_80` says whether that
    holds 0.8. `interval_score` is the median of Winkler's score (Winkler 1972; Gneiting and Raftery 2007 eq. 43: width
    plus 2/0.2 times the miss) over the published figure, `relative_width` the median width over it: lower is better.
    """
    banded = [(s.low, s.high, s.published) for s in measured(scored) if s.low is not None and s.high is not None]
    if not banded:
        return dict.fromkeys(("band80_coverage", "coverage_interval", "consistent_with_80", "interval_score", "relative_width"))  # fmt: skip
    low, high, truth = np.array(banded, dtype=float).T
    inside = int(np.sum((low <= truth) & (truth <= high)))
    interval = clopper_pearson(inside, len(banded))
    miss = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return {
        "band80_coverage": inside / len(banded),
        "coverage_interval": list(interval),
        "consistent_with_80": interval[0] <= BAND <= interval[1],
        "interval_score": float(np.median((high - low + 2 / (1 - BAND) * miss) / truth)),
        "relative_width": float(np.median((high - low) / truth)),
    }


def clopper_pearson(hits: int, of: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    low = float(beta.ppf(_RARE / 2, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - _RARE / 2, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def posttrain(scored: Sequence[Scored]) -> dict[str, Any]:
    """Memory and time apart: a row's `kind` begins with "memory" or "time"; what follows a colon is a source of its own."""
    parts: dict[str, list[Scored]] = {"memory": [], "time": []}
    for one in scored:
        parts["memory" if one.kind.startswith(("memory", "oom")) else "time"].append(one)
    return {
        "memory": {**_verdicts(parts["memory"]), "by_source": by_source(parts["memory"], _verdicts)},
        "time": {**errors(parts["time"]), **bands(parts["time"]), "by_source": by_source(parts["time"])},
    }


FIGURES: dict[str, Callable[[Sequence[Scored]], dict[str, Any]]] = {
    "memory": memory,
    "throughput": throughput,
    "runs": runs,
    "posttrain": posttrain,
}


def plain(value: Any) -> Any:
    """Valid JSON of it: four significant decimals, and None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
