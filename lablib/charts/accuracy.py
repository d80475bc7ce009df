"""Predicted against published: a point for each measurement, on the line where the two agree."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT


def accuracy(name: str, title: str, unit: str) -> Figure:
    """Frames: `name` (published, predicted, source, row, text) and ``agree`` (published, low, predicted, high): the
    diagonal with a tenth either side."""
    axis = alt.Axis(labelExpr=COUNT, tickCount=5)
    x = alt.X("published:Q", title=f"published, {unit}", scale=alt.Scale(type="log"), axis=axis)
    base = alt.Chart(alt.NamedData("agree"), width=theme.WIDTH, height=theme.WIDTH * 0.7)
    y = alt.Y("high:Q", title=f"predicted, {unit}", scale=alt.Scale(type="log"), axis=axis)
    band = base.mark_area(color=theme.GREY, opacity=0.2).encode(x=x, y=y, y2="low:Q")
    line = base.mark_line(color=theme.GREY, strokeWidth=1).encode(x=x, y="predicted:Q")
    tips = ["text:N", "source:N", alt.Tooltip("published:Q", format=".4~g"), alt.Tooltip("predicted:Q", format=".4~g")]
    points = (
        alt.Chart(alt.NamedData(name))
        .mark_circle(size=36, opacity=0.65, color=theme.BLUE)
        .encode(x=x, y="predicted:Q", tooltip=tips)
    )
    words = f"Each point is a published measurement, in {unit}. On the grey line the plan agrees; the band is a tenth either side."
    return Figure(name, title, words, band + line + points, (name, "agree"))
