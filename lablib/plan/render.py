"""A plan at a glance: text for the terminal, a small table for notebooks."""

from __future__ import annotations

import html as escape
from typing import TYPE_CHECKING

from lablib.plan import reading
from lablib.plan.ranges import Range
from lablib.specs.units import show_count, show_dollars, show_flops, show_seconds

if TYPE_CHECKING:
    from lablib.plan.estimate import Estimate


def rows(plan: Estimate) -> list[tuple[str, str]]:
    """(label, value) pairs of the headline numbers."""
    made = [("stage", f"{plan.stage} · {plan.name} on {plan.gpus} × {plan.accelerator}")]
    if plan.params.total:
        active = f", {show_count(plan.params.active)} active" if plan.params.active != plan.params.total else ""
        made.append(("parameters", f"{show_count(plan.params.total)}{active}"))
    if plan.flops.total:
        made.append(("compute", f"{show_flops(plan.flops.total)} ({show_flops(plan.flops.per_token)} a token)"))
    made += [("memory", _memory(plan)), ("time", _time(plan)), ("cost", _cost(plan))]
    if plan.reads:
        made.append(("data", reading.line(plan.reads)))
    if plan.goodput:
        made.append(("goodput", str(plan.goodput)))
    if plan.energy_kwh and plan.co2e_kg:
        made.append(("energy", f"{span(plan.energy_kwh, _short)} kWh, {span(plan.co2e_kg, _short)} kg CO₂e"))
    if plan.basis:
        made.append(("basis", plan.basis))
    return [*made, ("verdict", "fits" if plan.fits else "does not fit"), *(("!", w) for w in plan.warnings)]


def _short(number: float) -> str:
    return show_count(number) if number >= 1000 else f"{number:.3g}"


def span(value: Range, show: object) -> str:
    """``mid (low to high)`` in some unit."""
    assert callable(show)
    return f"{show(value.mid)} ({show(value.low)} to {show(value.high)})"


def _memory(plan: Estimate) -> str:
    largest = sorted(plan.memory.parts.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {size:.2g}" for name, size in largest if size)
    return f"{plan.memory.peak_gib:.3g} of {plan.memory.capacity_gib:.4g} GiB a process ({parts})"


def _time(plan: Estimate) -> str:
    wall = span(plan.days, lambda days: show_seconds(days * 86400))
    speed = f", {show_count(plan.tokens_per_second_per_gpu)} tokens/s each" if plan.tokens_per_second_per_gpu else ""
    used = f", MFU {plan.mfu:.0%}" if plan.mfu is not None else ""
    return f"{wall}: {plan.steps:,} × {show_seconds(plan.step_seconds)}{speed}{used}"


def _cost(plan: Estimate) -> str:
    hours = f"{span(plan.gpu_hours, _short)} GPU-hours"
    return f"{hours}, {span(plan.dollars, show_dollars)}" if plan.dollars else f"{hours}, price unknown"


def text(plan: Estimate) -> str:
    """Aligned lines."""
    return "\n".join(f"{label:<11} {value}" for label, value in rows(plan))


def html(plan: Estimate) -> str:
    """A compact table; every text is escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape.escape(label)}</th><td style='text-align:left'>{escape.escape(value)}</td></tr>"
        for label, value in rows(plan)
    )
    account = escape.escape(plan.explain())
    return f"<table>{cells}</table><details><summary>How each number came about</summary><pre>{account}</pre></details>"
