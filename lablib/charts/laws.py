"""Laws of hyper-parameters over compute, with a recipe among them."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT


def laws(name: str, title: str, unit: str) -> Figure:
    """Frames `name` (x, y, law, held), y in `unit` at x FLOP, `held` "fitted" or "beyond", and ``<name>_here`` (x, y)."""
    exponent = alt.Axis(format=".0e", tickCount=5, grid=False)
    x = alt.X("x:Q", title="FLOP of the training", scale=alt.Scale(type="log", nice=False), axis=exponent)
    numbers = {"labelExpr": COUNT} if "tokens" in unit else {"format": ".0e"}
    decades = alt.Axis(values=[10.0**power for power in range(-6, 10)], **numbers)
    y = alt.Y("y:Q", title=None, scale=alt.Scale(type="log"), axis=decades)
    held = alt.Scale(domain=["fitted", "beyond"], range=[[1, 0], [2, 4]])
    tooltip = ["law:N", "held:N", alt.Tooltip("x:Q", format=".2~e", title="FLOP"), alt.Tooltip("y:Q", format=".3~g", title=unit)]  # fmt: skip
    lines = (
        alt.Chart(alt.NamedData(name), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=y,
            color=alt.Color("law:N", sort=None, scale=alt.Scale(range=list(theme.LAB6[:1] + theme.LAB6[2:]))),
            strokeDash=alt.StrokeDash("held:N", scale=held, legend=None),
            tooltip=tooltip,
        )
    )
    dot = alt.Chart(alt.NamedData(f"{name}_here")).mark_point(color=theme.ORANGE, filled=True, size=120, opacity=1)
    words = f"Upwards the {unit}, at the recipe's tokens a parameter. Dotted: beyond what a law was fitted on. Orange: the recipe."
    return Figure(name, title, words, lines + dot.encode(x=x, y=y), (name, f"{name}_here"))
