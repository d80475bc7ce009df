"""Axes that write numbers as the field does: 7B, never Vega's 7G."""

from __future__ import annotations

from typing import Any

import altair as alt

COUNT = "abs(datum.value) < 1 ? format(datum.value, '~g') : replace(format(datum.value, '~s'), 'G', 'B')"
"""Vega expression: SI prefixes with B for 10⁹, and no milli for what is below one."""


def step_axis() -> alt.X:
    """Optimiser steps along the bottom."""
    return alt.X(
        "step:Q",
        title="step",
        axis=alt.Axis(labelExpr=COUNT, grid=False, tickCount=6, tickMinStep=1, labelFlush=False),
        scale=alt.Scale(nice=False),
    )


def value_axis(field: str, title: str, log: bool = False, zero: bool = False, **axis: Any) -> alt.Y:
    """A measured quantity upwards, its title written horizontally above the axis."""
    place = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleY": -8, "titleX": 0}
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=zero)
    return alt.Y(f"{field}:Q", title=title, axis=alt.Axis(tickCount=5, **{**place, **axis}), scale=scale)
