"""Vocabulary size against what it buys and costs."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT

_SIZE = {"width": theme.WIDTH, "height": theme.HEIGHT}


def fertility() -> Figure:
    """Frames ``fertility`` (vocab, bytes), ``published`` (vocab, bytes, name), ``vocabulary`` (vocab)."""
    x, y = _vocabulary(), _height("bytes", "bytes of text a token")
    tips = [alt.Tooltip("vocab:Q", format=","), alt.Tooltip("bytes:Q", format=".3~g")]
    line = alt.Chart(alt.NamedData("fertility"), **_SIZE).mark_line(color=theme.BLUE, strokeWidth=2, point=True)
    others = alt.Chart(alt.NamedData("published"))
    marks = others.mark_point(color=theme.ORANGE, filled=True, shape="diamond", size=70, opacity=1)
    names = others.mark_text(color=theme.GREY, align="right", dx=-8, dy=0).encode(x=x, y=y, text="name:N")
    chart = line.encode(x=x, y=y, tooltip=tips) + _rule(x) + names + marks.encode(x=x, y=y, tooltip=["name:N", *tips])
    words = "Blue: one tokenizer cut to each size. Diamonds: published tokenizers on the same text. More is shorter."
    return Figure("fertility", "What a token holds", words, chart, ("fertility", "published", "vocabulary"))


def vocabulary_cost() -> Figure:
    """Frames ``cost`` (vocab, flops, part) and ``vocabulary`` (vocab); flops are relative to a vocabulary of 32,768."""
    x, y = _vocabulary(), _height("flops", "FLOPs for the same text, of those at 32K")
    colour = alt.Color("part:N", sort=None, title=None, scale=alt.Scale(range=[theme.BLUE, theme.GREEN]))
    tips = ["part:N", alt.Tooltip("vocab:Q", format=","), alt.Tooltip("flops:Q", format=".3~g")]
    line = alt.Chart(alt.NamedData("cost"), **_SIZE).mark_line(strokeWidth=2, point=True)
    chart = line.encode(x=x, y=y, color=colour, tooltip=tips) + _rule(x)
    words = "Training compute for the same bytes of text: fewer tokens, but each one pays for a larger head."
    return Figure("vocabulary_cost", "What the same text costs", words, chart, ("cost", "vocabulary"))


def _vocabulary() -> alt.X:
    axis = alt.Axis(labelExpr=COUNT, grid=False, values=[2**power for power in range(10, 19)])
    return alt.X("vocab:Q", title="tokens in the vocabulary", scale=alt.Scale(type="log", base=2), axis=axis)


def _height(field: str, title: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))


def _rule(x: alt.X) -> alt.Chart:
    return alt.Chart(alt.NamedData("vocabulary")).mark_rule(strokeWidth=1.5, strokeDash=[4, 3]).encode(x=x)
