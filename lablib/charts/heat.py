"""Layers against steps: one colour a cell, so that a layer that leaves its peers stands out as a line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.sample import Frame, brief

CELLS, LOOKS = 2400, 80
"""Most cells and most looks of one heat map."""


@cache
def heat(name: str, title: str, caption: str, unit: str, log: bool = True) -> Figure:
    """Frame `name` (step, layer, value), as `cells` makes it; `unit` heads the colours, which are logarithmic with `log`."""
    scale = alt.Scale(type="log" if log else "linear", scheme="viridis")
    chart = (
        alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_rect()
        .encode(
            x=alt.X(
                "step:O",
                title="step",
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=14, ticks=False, grid=False),
            ),
            y=alt.Y(
                "layer:O",
                title="layer",
                sort="descending",
                axis=alt.Axis(labelOverlap="greedy", ticks=False, grid=False),
            ),
            color=alt.Color("value:Q", title=unit, scale=scale, legend=alt.Legend(title=unit, gradientLength=120)),
            tooltip=[alt.Tooltip("step:O"), alt.Tooltip("layer:O"), alt.Tooltip("value:Q", format=".4~g", title=unit)],
        )
    )
    return Figure(name, title, caption, chart, (name,))


def cells(rows: Sequence[dict[str, Any]], measure: str) -> Frame:
    """``<measure>.<layer>`` of the rows as columns step, layer, value; of more looks than a picture holds evenly spread ones,
    the last among them. Values that are not above zero are left out."""
    found = [row for row in rows if any(key.startswith(f"{measure}.") for key in row)]
    if not found:
        return {}
    layers = sum(key.startswith(f"{measure}.") for key in found[-1])
    most = max(2, min(LOOKS, CELLS // max(1, layers)))
    if len(found) > most:
        found = [found[round(index * (len(found) - 1) / (most - 1))] for index in range(most)]
    made = [
        (row["step"], int(key.rpartition(".")[2]), value)
        for row in found
        for key, value in row.items()
        if key.rpartition(".")[0] == measure and value is not None and value > 0
    ]
    return brief({name: list(column) for name, column in zip(("step", "layer", "value"), zip(*made, strict=True), strict=True)}) if made else {}  # fmt: skip
