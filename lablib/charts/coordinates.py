"""The coordinate check of μP: sizes of activations against width, which should be level."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure


def coordinates() -> Figure:
    """Frame ``check`` (width, step, part, size), as `lablib.train.coordinates.coordinate_check` makes it."""
    chart = (
        alt.Chart(alt.NamedData("check"), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_line(point=True)
        .transform_filter("datum.step > 0")
        .encode(
            x=alt.X("width:Q", title="hidden width", scale=alt.Scale(type="log", base=2)),
            y=alt.Y("size:Q", title="root mean square change", scale=alt.Scale(type="log")),
            color=alt.Color("part:N", title=None, scale=alt.Scale(range=list(theme.LAB6))),
            detail="step:N",
            opacity=alt.Opacity("step:Q", legend=None, scale=alt.Scale(range=[0.35, 1])),
            tooltip=["part:N", "width:Q", "step:Q", alt.Tooltip("size:Q", format=".3~g")],
        )
    )
    words = "How far each part's activations have moved after the first updates (later ones darker). Level lines: the same learning rate serves every width. Rising ones: wide models take too large steps."
    return Figure("coordinates", "Activations against width", words, chart, ("check",))
