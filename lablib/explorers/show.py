"""Numbers as people read them, beyond what `lablib.specs.units` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lablib.explorers.planned import Span
from lablib.specs.units import show_count, show_dollars, show_seconds

NONE = "none"


def gib(value: float | None) -> str:
    """``"1.2 GiB"``; MiB below a tenth."""
    if value is None:
        return NONE
    return f"{value:.3g} GiB" if value >= 0.1 else f"{1024 * value:.3g} MiB"


def rate(value: float | None) -> str:
    """``"12.3k tok/s"``."""
    return NONE if value is None else f"{show_count(value)} tok/s"


def share(value: float | None) -> str:
    """0.412 → ``"41 %"``."""
    return NONE if value is None else f"{100 * value:.3g} %"


def dollars(value: float | None) -> str:
    """``"$73,728"``; what is less than a hundredth of a cent says so."""
    if value is None:
        return NONE
    return show_dollars(value) if value >= 1e-4 else "< $0.0001" if value > 0 else "$0"


def seconds(value: float | None) -> str:
    """``"1 min 33 s"``."""
    return NONE if value is None else show_seconds(value)


def loss(value: float | None) -> str:
    """Three decimals, in nats per token."""
    return NONE if value is None else f"{value:.3f}"


def progress(found: Mapping[str, Any]) -> str:
    """How far `Run.progress` says a run is: ``"12.5 %"`` or ``"1.2k of 40k documents"``; empty where it says nothing."""
    if not found:
        return ""
    done, unit = show_count(found["done"], 4), found.get("unit", "")
    return f"{done} %" if unit == "%" else f"{done} of {show_count(found['total'], 4)} {unit}".rstrip()


SHOW = {"seconds": seconds, "gib": gib, "dollars": dollars, "loss": loss, "rate": rate}
"""Printer by measure."""


def span(value: Span | None, measure: str) -> str:
    """``"20 s (10 s to 30 s)"``: a range stays a range."""
    if value is None:
        return NONE
    show = SHOW[measure]
    low, mid, high = show(value.low), show(value.mid), show(value.high)
    return mid if low == high else f"{mid} ({low} to {high})"


def against(actual: float | None, plan: Span | None) -> str:
    """How an outcome lies to its plan, in words."""
    if plan is None:
        return "no plan"
    if actual is None or plan.mid <= 0:
        return "not measured" if actual is None else ""
    ratio = f"{actual / plan.mid:.2f}× the plan"
    if plan.low == plan.high:
        return ratio
    where = "in" if plan.low <= actual <= plan.high else "above" if actual > plan.high else "below"
    return f"{ratio}, {where} the range"
