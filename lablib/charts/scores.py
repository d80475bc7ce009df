"""Evaluation: a dot for each model on each task, with the interval that says how much the dot means."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure


def scores(name: str = "scores", unit: str = "share of items right") -> Figure:
    """Frame `name` (task, model, value, low, high): 95 % intervals as lines."""
    base = alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=alt.Step(16, **{"for": "offset"})).encode(
        y=alt.Y("task:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8)),
        yOffset=alt.YOffset("model:N", sort=None),
        color=alt.Color("model:N", sort=None),
    )
    x = alt.X("low:Q", title=unit, scale=alt.Scale(zero=False))
    lines = base.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q")
    numbers = [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("value", "low", "high")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="value:Q", shape=alt.Shape("model:N", sort=None, legend=None), tooltip=["task:N", "model:N", *numbers]
    )
    words = "Dot: score on held-out items; line: 95 % interval. Whether a stage helped is decided by the paired difference in the table, not by whether two lines overlap."
    return Figure(name, f"Scores: {unit}", words, lines + dots, (name,))
