"""The forecast of a loss curve, as it was registered before the run: a band to watch the run against.

``forecast.json`` is `lablib.plan.Forecast`'s JSON: equally long lists step, low, mid and high (nats per token).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from lablib.charts import Frame, columns
from lablib.charts.sample import MOST, brief

NAMES = ("step", "low", "mid", "high")


def band(forecast: Mapping[str, Any] | None) -> Frame:
    """The frame of a band, at most a thousand points; empty without a forecast."""
    if not forecast:
        return {}
    points = [dict(zip(NAMES, values, strict=True)) for values in zip(*(forecast[name] for name in NAMES), strict=True)]
    stride = -(-len(points) // MOST) or 1
    return brief(columns([*points[:-1][::stride], *points[-1:]], NAMES))


def interval_at(frame: Frame, step: float) -> tuple[float, float] | None:
    """(low, high) at a step, linear between the forecast's points; None outside it."""
    steps = frame.get("step", [])
    if not steps or not steps[0] <= step <= steps[-1]:
        return None
    right = bisect_left(steps, step)
    if steps[right] == step:
        return frame["low"][right], frame["high"][right]
    weight = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
    low, high = (frame[name][right - 1] * (1 - weight) + frame[name][right] * weight for name in ("low", "high"))
    return low, high


def verdict(frame: Frame, step: float, value: float) -> str:
    """Where a smoothed loss lies to its forecast, in words; empty where nothing was forecast for the step."""
    interval = interval_at(frame, step)
    if interval is None:
        return ""
    low, high = interval
    where = "above" if value > high else "below" if value < low else "inside"
    return f"{where} the forecast {low:.2f} to {high:.2f}"
