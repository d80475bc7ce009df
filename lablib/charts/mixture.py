"""A mixture over training, planned and read, how often each of its domains is read, and how well each is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import altair as alt

from lablib.charts import theme
from lablib.charts.bars import ROW
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT, step_axis

DRAWN = 7
"""Domains with a colour of their own; more are drawn together as the last one."""


def labels(domains: Sequence[str]) -> dict[str, str]:
    """Domain → its name in a legend, the first ones their own and the rest together, so that each has a colour."""
    apart = len(domains) if len(domains) <= DRAWN + 1 else DRAWN
    rest = f"{len(domains) - apart} others"
    return {name: name if place < apart else rest for place, name in enumerate(domains)}


def _colours() -> alt.Color:
    """A colour a domain, in the order in which the frame first names them."""
    scale = alt.Scale(range=[*theme.LAB6, theme.GREY, "#9AA0A6"])
    return alt.Color("domain:N", sort=None, legend=alt.Legend(columns=3), scale=scale)


def _stacked(frame: str, interpolate: Any, x: alt.X, along: alt.Tooltip) -> alt.Chart:
    y = alt.Y("share:Q", title="share of tokens", stack="zero", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5))  # fmt: skip
    marks = alt.Chart(alt.NamedData(frame), width=theme.WIDTH, height=theme.HEIGHT).mark_area(interpolate=interpolate, line=False, opacity=0.9)  # fmt: skip
    tips = ["domain:N", alt.Tooltip("share:Q", format=".2%"), along]
    return marks.encode(x=x, y=y, color=_colours(), order=alt.Order("order:Q"), tooltip=tips)


@cache
def mixture_read(planned: bool = True) -> Figure:
    """`planned` says whether the words speak of a plan. Frames: ``mixture_read`` (step, domain, share, order): stacked shares
    of what was read up to each step since the one before; ``mixture_plan`` (step, domain, upto): the upper bound of each
    domain's planned share from each step on.
    """
    area = _stacked("mixture_read", "step-before", step_axis(), alt.Tooltip("step:Q", format=",d"))
    bounds = alt.Chart(alt.NamedData("mixture_plan")).mark_line(
        interpolate="step-after", color="#FFFFFF", strokeWidth=2, strokeDash=[5, 4]
    )
    chart = area + bounds.encode(x="step:Q", y=alt.Y("upto:Q"), detail="domain:N")
    words = "Shares of the tokens that were trained on, stacked." + (" Dashed white: planned." if planned else "")
    return Figure("mixture_read", "The mixture as it was read", words, chart, ("mixture_read", "mixture_plan"))


@cache
def loss_by_domain() -> Figure:
    """Frame ``domain_loss`` (step, name, domain, loss): nats a token on held-out text of each `name`; `domain` is the legend's
    word for it (`labels`)."""
    tips = ["name:N", alt.Tooltip("step:Q", format=",d"), alt.Tooltip("loss:Q", format=".4f")]
    y = alt.Y("loss:Q", title="loss, nats", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    chart = (
        alt.Chart(alt.NamedData("domain_loss"), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_line(strokeWidth=1.8, point={"size": 30})
        .encode(x=step_axis(), y=y, color=_colours(), detail="name:N", tooltip=tips)
    )
    words = "Held-out loss of each domain. Levels differ with the text; what to look at is one that stops falling, or rises."
    return Figure("domain_loss", "Held-out loss by domain", words, chart, ("domain_loss",))


def mixture_over_training() -> Figure:
    """Frame ``mixture`` (tokens, domain, share, order): stacked shares, a step where the mixture changes.

    Each phase gives a row a domain at its first token; the last phase gives them again at the end.
    """
    x = alt.X("tokens:Q", title="tokens", scale=alt.Scale(nice=False), axis=alt.Axis(labelExpr=COUNT, tickCount=6, grid=False))  # fmt: skip
    chart = _stacked("mixture", "step-after", x, alt.Tooltip("tokens:Q", format=",.4~s"))
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
