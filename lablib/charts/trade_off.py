"""Speed against memory: the layouts of a search, those that fit and those that do not."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT


def trade_off() -> Figure:
    """Frames ``fitting`` and ``unfit`` (gib, rate, layout, reason), and ``limit`` (gib)."""
    x = alt.X("gib:Q", title="GiB of one device", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    y = alt.Y("rate:Q", title="tokens/s each", scale=alt.Scale(zero=False), axis=alt.Axis(labelExpr=COUNT, tickCount=5))
    numbers = [alt.Tooltip("rate:Q", format=",.4~g"), alt.Tooltip("gib:Q", format=".3~g")]
    tips = ["layout:N", *numbers, "reason:N"]
    sized = {"width": theme.WIDTH, "height": theme.HEIGHT * 1.4}
    fitting = alt.Chart(alt.NamedData("fitting"), **sized).mark_circle(size=60, opacity=0.8, color=theme.BLUE)
    unfit = alt.Chart(alt.NamedData("unfit")).mark_point(size=50, shape="cross", color=theme.GREY)
    limit = alt.Chart(alt.NamedData("limit")).mark_rule(strokeWidth=2, strokeDash=[4, 3]).encode(x=x)
    chart = unfit.encode(x=x, y=y, tooltip=tips) + fitting.encode(x=x, y=y, tooltip=tips) + limit
    words = "Blue: the fastest layouts that fit. Grey crosses: fast ones that do not. The dashed line is the device's memory; point at one for its layout and why it loses."
    return Figure("trade_off", "Speed against memory", words, chart, ("fitting", "unfit", "limit"))
