"""A mixture over training, and how often each of its domains is read."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.bars import ROW
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT

DRAWN = 7
"""Domains with a colour of their own; more are drawn together as the last one."""


def mixture_over_training() -> Figure:
    """Frame ``mixture`` (tokens, domain, share, order): stacked shares, a step where the mixture changes.

    Each phase gives a row a domain at its first token; the last phase gives them again at the end.
    """
    colours = alt.Color(
        "domain:N", sort=None, legend=alt.Legend(columns=3), scale=alt.Scale(range=[*theme.LAB6, theme.GREY, "#9AA0A6"])
    )
    chart = (
        alt.Chart(alt.NamedData("mixture"), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_area(interpolate="step-after", line=False, opacity=0.9)
        .encode(
            x=alt.X("tokens:Q", title="tokens", scale=alt.Scale(nice=False), axis=alt.Axis(labelExpr=COUNT, tickCount=6, grid=False)),
            y=alt.Y("share:Q", title="share of tokens", stack="zero", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
            color=colours,
            order=alt.Order("order:Q"),
            tooltip=["domain:N", alt.Tooltip("share:Q", format=".2%"), alt.Tooltip("tokens:Q", format=",.4~s")],
        )
    )  # fmt: skip
    words = "Shares of tokens as training goes on; a step is where the mixture changes."
    return Figure("mixture", "The mixture over training", words, chart, ("mixture",))


def epochs_by_domain() -> Figure:
    """Frames ``epochs`` (domain, epochs, worth, over) and ``cap`` (epochs): passes over each domain, orange beyond the cap."""
    base = alt.Chart(alt.NamedData("epochs"), width=theme.WIDTH, height=ROW)
    x = alt.X("epochs:Q", title="passes over the domain", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    y = alt.Y("domain:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    colour = alt.condition("datum.over", alt.value(theme.ORANGE), alt.value(theme.BLUE))
    tips = ["domain:N", *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("epochs", "worth"))]
    bars = base.mark_bar(height=14, cornerRadiusEnd=2).encode(x=x, y=y, color=colour, tooltip=tips)
    worth = base.mark_tick(color=theme.GREY, thickness=3, height=24, opacity=1).encode(x="worth:Q", y=y, tooltip=tips)
    cap = alt.Chart(alt.NamedData("cap")).mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(x="epochs:Q")
    words = "Bars: passes over each domain, orange beyond the cap (dashed). Tick: what they are worth in passes of new data (arXiv 2305.16264)."
    return Figure("epochs", "How often each domain is read", words, bars + worth + cap, ("epochs", "cap"))
