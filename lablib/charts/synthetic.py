"""Text that models wrote: what became of it, what caps leave of each generation, and how diverse each still is."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.bars import ROW
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT

FATES = ("stays", "too deep", "synthetic by too much", "over the corpus' share")
"""What the caps do with a document, in the order in which they are asked."""


def written() -> Figure:
    """Frame ``written`` (fate, completions, kept): a bar for what was kept and for each reason why others were not."""
    base = alt.Chart(alt.NamedData("written"), width=theme.WIDTH, height=alt.Step(24))
    colour = alt.condition("datum.kept", alt.value(theme.BLUE), alt.value(theme.GREY))
    bars = base.mark_bar(height=14, cornerRadiusEnd=2).encode(
        y=_row("fate"),
        x=alt.X("completions:Q", title="completions", axis=alt.Axis(labelExpr=COUNT, tickCount=5, tickMinStep=1)),
        color=colour,
        tooltip=["fate:N", alt.Tooltip("completions:Q", format=",")],
    )
    words = "Blue: completions that became documents. Grey: those that did not, by reason."
    return Figure("written", "What became of the completions", words, bars, ("written",))


def generations() -> Figure:
    """Frame ``generations`` (generation, fate, share, tokens, order): a bar a generation, of its tokens by `FATES`."""
    colours = alt.Scale(domain=list(FATES), range=[theme.BLUE, theme.ORANGE, theme.PINK, theme.BROWN])
    base = alt.Chart(alt.NamedData("generations"), width=theme.WIDTH, height=ROW)
    bars = base.mark_bar(height=16).encode(
        y=_row("generation"),
        x=alt.X("share:Q", title="share of its tokens", stack=True, axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("fate:N", scale=colours, legend=alt.Legend(columns=2)),
        order=alt.Order("order:Q"),
        tooltip=["generation:N", "fate:N", alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("tokens:Q", format=",")],
    )  # fmt: skip
    words = "Generation 0 is people's text, n + 1 was made from n. Colours say what the caps leave of each and why the rest goes."
    return Figure("generations", "Generations under the caps", words, bars, ("generations",))


def cap_curve() -> Figure:
    """Frames ``curve`` (cap, tokens), ``cap`` (cap, tokens) and ``found`` (cap): tokens of models that stay at each cap on
    their share of the corpus, the chosen one, and the share that the corpus has."""
    x = alt.X("cap:Q", title="cap on the synthetic share of all tokens", axis=alt.Axis(format="%", values=[0.01, 0.05, 0.1, 0.25, 0.5, 1], grid=False), scale=alt.Scale(type="sqrt", domain=[0, 1]))  # fmt: skip
    y = alt.Y("tokens:Q", title="synthetic tokens left", axis=alt.Axis(labelExpr=COUNT, tickCount=4))
    tips = [alt.Tooltip("cap:Q", format=".0%"), alt.Tooltip("tokens:Q", format=",.4~g")]
    line = alt.Chart(alt.NamedData("curve"), width=theme.WIDTH, height=theme.HEIGHT).mark_line(
        color=theme.BLUE, strokeWidth=2
    )
    dot = alt.Chart(alt.NamedData("cap")).mark_point(color=theme.ORANGE, filled=True, size=120, opacity=1)
    rule = alt.Chart(alt.NamedData("found")).mark_rule(strokeWidth=1.5, strokeDash=[4, 3]).encode(x=x)
    chart = line.encode(x=x, y=y, tooltip=tips) + rule + dot.encode(x=x, y=y, tooltip=tips)
    words = "What stays as the cap is moved, at the chosen caps on depth and document (axis by square root). Orange: the chosen cap. Dashed: the share that the corpus has."
    return Figure("curve", "What the cap on the corpus lets through", words, chart, ("curve", "cap", "found"))


def generation_diversity() -> Figure:
    """Frames ``diversity`` (generation, measure, left, value) and ``floor`` (left): what each generation has left of
    generation 0's diversity by each measure, and where the alarm begins."""
    x = alt.X("generation:O", title="generation", axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("left:Q", title="diversity, of people's text", scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%", tickCount=5))  # fmt: skip
    tips = ["measure:N", "generation:O", alt.Tooltip("left:Q", format=".1%"), alt.Tooltip("value:Q", format=".3~g")]
    lines = (
        alt.Chart(alt.NamedData("diversity"), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=60, filled=True))
        .encode(
            x=x,
            y=y,
            color=alt.Color("measure:N", sort=None, scale=alt.Scale(range=list(theme.LAB6)), legend=alt.Legend(columns=2)),
            tooltip=tips,
        )
    )  # fmt: skip
    floor = alt.Chart(alt.NamedData("floor")).mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(y="left:Q")
    words = "Distinct n-grams and (inverted) compression beside generation 0, on samples of as many words. Below the dashed line the alarm goes off."
    return Figure("diversity", "Diversity by generation", words, lines + floor, ("diversity", "floor"))


def _row(field: str) -> alt.Y:
    axis = alt.Axis(domain=False, ticks=False, labelPadding=8, labelLimit=220)
    return alt.Y(f"{field}:N", sort=None, title=None, axis=axis)
