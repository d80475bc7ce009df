"""`ChainEstimate`: a whole chain of recipes, with each stage's share of compute, time and money."""

from __future__ import annotations

import html as escape
from collections.abc import Sequence
from pathlib import Path

from lablib.plan.efficiency import Efficiency
from lablib.plan.estimate import Estimate, estimate
from lablib.plan.ranges import Range
from lablib.plan.render import span
from lablib.specs import Cluster, LabError, Recipe, Spec
from lablib.specs.units import show_dollars, show_flops, show_seconds


class Share(Spec):
    """One stage's share of the chain, each None where the whole is unknown or nothing."""

    flops: float | None
    gpu_hours: float
    days: float
    dollars: float | None


class ChainEstimate(Spec):
    """Stages one after the other on one cluster. Bounds add up: what makes one stage slow makes the others slow."""

    stages: tuple[Estimate, ...]
    shares: tuple[Share, ...]
    flops: float
    """Model FLOPs of all stages."""
    gpu_hours: Range
    days: Range
    dollars: Range | None
    energy_kwh: Range | None
    co2e_kg: Range | None
    fits: bool
    warnings: tuple[str, ...]
    """Each with its stage's name before it."""

    def explain(self) -> str:
        """Every stage's account."""
        return "\n\n".join(f"[{plan.name}]\n{plan.explain()}" for plan in self.stages)

    def __str__(self) -> str:
        table = _table(self)
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        )
        return "\n".join((*lines, *(f"! {warning}" for warning in self.warnings)))

    def _repr_html_(self) -> str:
        head, *body = _table(self)
        rows = "".join(f"<tr>{''.join(f'<td>{escape.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
        titles = "".join(f"<th style='text-align:left'>{escape.escape(cell)}</th>" for cell in head)
        notes = "".join(f"<li>{escape.escape(warning)}</li>" for warning in self.warnings)
        account = escape.escape(self.explain())
        return (
            f"<table><tr>{titles}</tr>{rows}</table>{f'<ul>{notes}</ul>' if notes else ''}"
            f"<details><summary>How each number came about</summary><pre>{account}</pre></details>"
        )


def estimate_chain(
    recipes: Sequence[Recipe], cluster: Cluster, efficiency: Efficiency | None = None, root: Path | None = None
) -> ChainEstimate:
    """What the recipes take one after the other. Raises `LabError` for an empty chain, and what `estimate` raises."""
    if not recipes:
        raise LabError("recipes=[]: a chain has at least one stage")
    plans = tuple(estimate(recipe, cluster, efficiency, root) for recipe in recipes)
    flops = sum(plan.flops.total for plan in plans)
    hours, days, dollars = (_sum([getattr(plan, name) for plan in plans]) for name in ("gpu_hours", "days", "dollars"))
    assert hours is not None and days is not None
    return ChainEstimate(
        stages=plans,
        shares=tuple(_share(plan, flops, hours, days, dollars) for plan in plans),
        flops=flops,
        gpu_hours=hours,
        days=days,
        dollars=dollars,
        energy_kwh=_sum([plan.energy_kwh for plan in plans]),
        co2e_kg=_sum([plan.co2e_kg for plan in plans]),
        fits=all(plan.fits for plan in plans),
        warnings=tuple(dict.fromkeys(f"{plan.name}: {warning}" for plan in plans for warning in plan.warnings)),
    )


def _sum(parts: Sequence[Range | None]) -> Range | None:
    total = Range.exactly(0.0)
    for part in parts:
        if part is None:
            return None
        total = total.plus(part)
    return total


def _share(plan: Estimate, flops: float, hours: Range, days: Range, dollars: Range | None) -> Share:
    return Share(
        flops=plan.flops.total / flops if flops else None,
        gpu_hours=plan.gpu_hours.mid / hours.mid,
        days=plan.days.mid / days.mid,
        dollars=plan.dollars.mid / dollars.mid if dollars and dollars.mid and plan.dollars else None,
    )


def _table(chain: ChainEstimate) -> list[tuple[str, ...]]:
    head = ("stage", "compute", "share", "GPU-hours", "share", "time", "share", "cost", "share", "verdict")
    body = [
        (plan.name, show_flops(plan.flops.total), _percent(share.flops), f"{plan.gpu_hours.mid:,.3g}", _percent(share.gpu_hours),
         show_seconds(plan.days.mid * 86400), _percent(share.days), show_dollars(plan.dollars.mid) if plan.dollars else "unknown",
         _percent(share.dollars), "fits" if plan.fits else "does not fit")
        for plan, share in zip(chain.stages, chain.shares, strict=True)
    ]  # fmt: skip
    whole = span(chain.dollars, show_dollars) if chain.dollars else "unknown"
    hours = f"{chain.gpu_hours.mid:,.3g} ({chain.gpu_hours.low:,.3g} to {chain.gpu_hours.high:,.3g})"
    time = span(chain.days, lambda days: show_seconds(days * 86400))
    return [
        head,
        *body,
        ("all", show_flops(chain.flops), "", hours, "", time, "", whole, "", "fits" if chain.fits else "does not fit"),
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
