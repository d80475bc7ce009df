"""A registered estimate read back as plain spans, to set beside what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lablib.runs import Run


@dataclass(frozen=True)
class Span:
    """A planned quantity as low, middle and high; all equal where the plan gives one number."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class Planned:
    """What an estimate promised for one run; None where it says nothing."""

    seconds: Span | None = None
    gib: Span | None = None
    dollars: Span | None = None
    rate: Span | None = None
    loss: Span | None = None


def _span(value: Any, scale: float = 1.0) -> Span | None:
    if isinstance(value, Mapping):
        return Span(*(float(value[key]) * scale for key in ("low", "mid", "high")))
    return None if value is None else Span(*(3 * [float(value) * scale]))


def of_estimate(estimate: Mapping[str, Any] | None, gpus: int) -> Planned:
    """Seconds, GiB of the fullest process, dollars and tokens/s of all processes, from an estimate's JSON."""
    if not estimate:
        return Planned()
    memory = estimate.get("memory") or {}
    days, rate = estimate.get("days"), estimate.get("tokens_per_second_per_gpu")
    return Planned(
        seconds=_span(days, 86400.0),
        gib=_span(memory.get("peak_gib")),
        dollars=_span(estimate.get("dollars")),
        rate=_span(rate, gpus),
    )


def forecast_end(forecast: Mapping[str, Any] | None) -> Span | None:
    """The loss that a forecast gives for the last step."""
    return Span(*(forecast[name][-1] for name in ("low", "mid", "high"))) if forecast else None


def planned(run: Run) -> Planned:
    """What was registered before `run` began."""
    found = of_estimate(run.estimate, run.recipe.gpus)
    return Planned(found.seconds, found.gib, found.dollars, found.rate, forecast_end(run.forecast))
