"""Frames: columns of plain numbers, thinned so that a chart of a million steps stays as light as one of a thousand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

Frame = dict[str, list[Any]]
"""Columns of equal length; what a chart's named data is, in JSON."""
MOST = 1000
"""Points of one series: replacing 1,000 × 3 points takes a browser about 30 ms, 5,000 × 3 over 100 ms."""


def rounded(value: Any, digits: int = 6) -> Any:
    """A float at `digits` significant digits (a third of its JSON); infinities and NaN become None."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _usable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def columns(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> Frame:
    """The rows that have a finite value for every name, as columns."""
    kept = [row for row in rows if all(_usable(row.get(name)) for name in names)]
    return {name: [row[name] for row in kept] for name in names}


def thin(frame: Frame, value: str, most: int = MOST) -> Frame:
    """At most `most` points: of each bucket of neighbours the lowest and the highest `value` stay, and both ends of the
    series, so a one-step spike is never averaged away. Order is kept; floats are rounded to six digits.
    """
    length = len(frame[value])
    if length <= most:
        return brief(frame)
    keep = {0, length - 1}
    buckets = (most - 2) // 2
    for bucket in range(buckets):
        inside = range(bucket * length // buckets, (bucket + 1) * length // buckets)
        keep |= {min(inside, key=frame[value].__getitem__), max(inside, key=frame[value].__getitem__)}
    order = sorted(keep)
    return brief({name: [column[i] for i in order] for name, column in frame.items()})


def brief(frame: Frame) -> Frame:
    """The frame with `rounded` numbers."""
    return {name: [rounded(value) for value in column] for name, column in frame.items()}


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving average with weight 2 / (span + 1), corrected for its start as Adam does (arXiv 1412.6980 §3)."""
    keep, total, weight, smoothed = 1 - 2 / (span + 1), 0.0, 0.0, []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def series(rows: Iterable[dict[str, Any]], value: str, most: int = MOST) -> Frame:
    """``step`` and one metric, thinned to `most` points."""
    return thin(columns(rows, ("step", value)), value, most)


def to_rows(frame: Frame) -> list[dict[str, Any]]:
    """Columns back to records, as Vega reads them."""
    return [dict(zip(frame, record, strict=True)) for record in zip(*frame.values(), strict=True)]
