"""The funnel of a corpus: what is left after each step, a published one under it, and what each rule does."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure


def funnel() -> Figure:
    """Frame ``funnel`` (step, funnel, share, words): a bar a step, the user's in blue above a published one in grey."""
    colour = alt.Color(
        "funnel:N", sort=None, scale=alt.Scale(range=[theme.BLUE, theme.GREY]), legend=alt.Legend(columns=1)
    )
    base = alt.Chart(alt.NamedData("funnel"), width=theme.WIDTH, height=alt.Step(24)).encode(
        y=_named("step", 200),
        x=alt.X("share:Q", title="left, of what came in", axis=alt.Axis(format="%", values=[0, 0.5, 1]), scale=alt.Scale(domain=[0, 1.35])),
    )  # fmt: skip
    bars = base.mark_bar(height=14, cornerRadiusEnd=2).encode(
        color=colour, tooltip=["funnel:N", "step:N", alt.Tooltip("share:Q", format=".3%"), "words:N"]
    )
    labels = base.mark_text(align="left", dx=4).encode(text=alt.Text("share:Q", format=".3~p"))
    caption = "Share left after each step, of what went into the first. Units and sources are in the table."
    return Figure("funnel", "What is left after each step", caption, bars + labels, ("funnel",))


def rules() -> Figure:
    """Frame ``rules`` (rule, alone, first): documents that break each rule, and those that no rule before it caught."""
    base = alt.Chart(alt.NamedData("rules"), width=theme.WIDTH, height=alt.Step(22)).encode(y=_named("rule"))
    tooltip = ["rule:N", alt.Tooltip("alone:Q", format=".3~p"), alt.Tooltip("first:Q", format=".3~p")]
    alone = base.mark_bar(color=theme.GREY, opacity=0.35, height=16, cornerRadiusEnd=2).encode(
        x=alt.X("alone:Q", title="documents", axis=alt.Axis(format="%", tickCount=5)), tooltip=tooltip
    )
    first = base.mark_bar(color=theme.BLUE, height=8, cornerRadiusEnd=2).encode(x="first:Q", tooltip=tooltip)
    caption = "Grey: documents that break the rule. Blue: those of them that no rule above it had dropped."
    return Figure("rules", "What each rule drops", caption, alone + first, ("rules",))


def _named(field: str, limit: int = 260) -> alt.Y:
    return alt.Y(
        f"{field}:N",
        sort=None,
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelPadding=8, labelLimit=limit, labelOverlap=False),
    )
