"""Bars: plan against outcome, memory by part, a corpus by domain."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT

ROW = alt.Step(30)
"""Pixels of one row."""


def _rows(field: str, title: str | None = None) -> alt.Y:
    return alt.Y(f"{field}:N", sort=None, title=title, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))


def plan_vs_actual(name: str, title: str, unit: str) -> Figure:
    """Frame `name` (stage, low, mid, high, actual): planned range and middle in grey, what happened in blue."""
    base = alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=ROW)
    x = alt.X("high:Q", title=unit, axis=alt.Axis(labelExpr=COUNT, tickCount=6), scale=alt.Scale(zero=True))
    tooltip = ["stage:N", *(alt.Tooltip(f"{field}:Q", format=".4~g") for field in ("low", "mid", "high", "actual"))]
    planned = base.mark_bar(color=theme.GREY, opacity=0.28, height=16, cornerRadius=2).encode(
        x=x, x2="low:Q", y=_rows("stage")
    )
    middle = base.mark_tick(color=theme.GREY, thickness=2, height=20).encode(x="mid:Q", y=_rows("stage"))
    actual = base.mark_point(color=theme.BLUE, filled=True, size=90, opacity=1).encode(
        x="actual:Q", y=_rows("stage"), tooltip=tooltip
    )
    words = f"Grey: planned range with its middle, in {unit}. Blue: what happened."
    return Figure(name, title, words, planned + middle + actual, (name,))


def memory_parts() -> Figure:
    """Frames: ``parts`` (part, gib) of one device, and ``limit`` (gib)."""
    colour = alt.Color("part:N", sort=None, scale=alt.Scale(range=[*theme.LAB6, theme.GREY, "#9AA0A6"]))
    bar = (
        alt.Chart(alt.NamedData("parts"), width=theme.WIDTH, height=54)
        .mark_bar(height=30)
        .encode(
            x=alt.X("gib:Q", title="GiB of one device", stack=True),
            color=colour,
            order=alt.Order("order:Q"),
            tooltip=["part:N", alt.Tooltip("gib:Q", format=".3~g", title="GiB")],
        )
    )
    limit = alt.Chart(alt.NamedData("limit")).mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(x="gib:Q")
    return Figure(
        "parts",
        "Memory of one device",
        "Stacked parts at the peak of a step; the dashed line is what the device has.",
        bar + limit,
        ("parts", "limit"),
    )


def shares(name: str, title: str, caption: str, unit: str, colour: str = theme.BLUE) -> Figure:
    """Frame `name` (label, value): one horizontal bar a row, for a corpus, a funnel or the parts of a step."""
    base = alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=alt.Step(24)).encode(
        y=_rows("label"), x=alt.X("value:Q", title=unit, axis=alt.Axis(labelExpr=COUNT, tickCount=5))
    )
    bars = base.mark_bar(color=colour, height=14, cornerRadiusEnd=2).encode(
        tooltip=["label:N", alt.Tooltip("value:Q", format=",.4~g", title=unit)]
    )
    return Figure(name, title, caption, bars, (name,))


def sweep(name: str, title: str, caption: str, x: str, y: str, log: bool = True) -> Figure:
    """Frames `name` (x, y) as a line over a logarithmic axis (upwards too with `log`, else from zero) and ``<name>_here`` (x, y) as the chosen point."""
    across = alt.X(
        "x:Q", title=x, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(labelExpr=COUNT, tickCount=5, grid=False)
    )
    up = alt.Y(
        "y:Q",
        title=y,
        scale=alt.Scale(type="log") if log else alt.Scale(zero=True),
        axis=alt.Axis(
            labelExpr=COUNT, tickCount=4, titleAngle=0, titleAlign="left", titleAnchor="end", titleY=-8, titleX=0
        ),
    )
    tooltip = [alt.Tooltip("x:Q", title=x, format=",.4~g"), alt.Tooltip("y:Q", title=y, format=",.4~g")]
    line = alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=theme.HEIGHT).mark_line(
        color=theme.BLUE, strokeWidth=2
    )
    dot = alt.Chart(alt.NamedData(f"{name}_here")).mark_point(color=theme.ORANGE, filled=True, size=120, opacity=1)
    chart = line.encode(x=across, y=up, tooltip=tooltip) + dot.encode(x=across, y=up, tooltip=tooltip)
    return Figure(name, title, caption, chart, (name, f"{name}_here"))
