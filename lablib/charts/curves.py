"""Curves over steps: what a run measures while it trains, beside what was forecast before it began.

A figure holds no data, so each is built once: a live screen asks for them at every look.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure
from lablib.charts.scale import COUNT, step_axis, value_axis


def _line(frame: str, value: str, title: str, colour: str = theme.BLUE, **options: Any) -> alt.Chart:
    axis: dict[str, Any] = {"labelExpr": COUNT} if options.pop("count", False) else {}
    tooltip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip(f"{value}:Q", format=".4~g", title=title)]
    return (
        alt.Chart(alt.NamedData(frame), width=theme.WIDTH, height=theme.HEIGHT)
        .mark_line(color=colour, strokeWidth=1.8, clip=True)
        .encode(x=step_axis(), y=value_axis(value, title, **options, **axis), tooltip=tooltip)
    )


def _faint(frame: str, value: str, colour: str = theme.BLUE) -> alt.Chart:
    marks = alt.Chart(alt.NamedData(frame)).mark_line(color=colour, strokeWidth=1, opacity=0.45)
    return marks.encode(x="step:Q", y=f"{value}:Q")


@cache
def loss(forecast: bool = True, rewinds: bool = False) -> Figure:
    """`forecast` and `rewinds` say whether the words speak of them. Frames: ``loss`` (step, loss, smooth), ``band`` (step, low, mid, high), ``heldout`` (step, loss), ``rewinds`` (step, to_step); nats a token."""
    band = alt.Chart(alt.NamedData("band"))
    x, y = step_axis(), value_axis("loss", "loss, nats")
    area = band.mark_area(color=theme.GREY, opacity=0.2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    middle = band.mark_line(color=theme.GREY, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=alt.Y("mid:Q"))
    dots = (
        alt.Chart(alt.NamedData("heldout"))
        .mark_point(color=theme.ORANGE, filled=True, size=46, shape="diamond", opacity=1)
        .encode(
            x=x,
            y=y,
            tooltip=[alt.Tooltip("step:Q", format=",d"), alt.Tooltip("loss:Q", format=".4f", title="held-out loss")],
        )
    )
    line = _line("loss", "smooth", "loss, nats")
    back = alt.Chart(alt.NamedData("rewinds")).mark_rule(color=theme.PINK, strokeWidth=1.5, strokeDash=[2, 3])
    told_back = [alt.Tooltip("step:Q", title="spike at step"), alt.Tooltip("to_step:Q", title="back to step")]
    marks = back.encode(x=x, tooltip=told_back)
    chart = (area + middle + marks + _faint("loss", "loss") + line + dots).properties(
        width=theme.WIDTH, height=theme.HEIGHT + 40
    )
    words = "Blue: training loss (line smoothed, faint as logged). Orange diamonds: held-out."
    words += " Dotted pink: a spike, from which the run went back." if rewinds else ""
    told = f"{words} Grey: the forecast and its band, registered before the start." if forecast else words
    title = "Loss against the forecast" if forecast else "Loss"
    return Figure("loss", title, told, chart, ("loss", "band", "heldout", "rewinds"))


@cache
def speed() -> Figure:
    """Frames: ``speed`` (step, tokens_per_second), ``speed_plan`` (tokens_per_second)."""
    chart = _line("speed", "tokens_per_second", "tokens/s", theme.GREEN, zero=True, count=True) + _planned(
        "speed_plan", "tokens_per_second"
    )
    return Figure(
        "speed",
        "Throughput",
        "Tokens per second over all processes. Dashed grey: planned.",
        chart,
        ("speed", "speed_plan"),
    )


@cache
def memory() -> Figure:
    """Frames: ``memory`` (step, memory_gib), ``memory_plan`` (memory_gib)."""
    chart = _line("memory", "memory_gib", "GiB", theme.PINK, zero=True) + _planned("memory_plan", "memory_gib")
    return Figure(
        "memory", "Memory of one process", "Peak GiB so far. Dashed grey: planned.", chart, ("memory", "memory_plan")
    )


def _planned(frame: str, value: str) -> alt.Chart:
    rule = alt.Chart(alt.NamedData(frame)).mark_rule(color=theme.GREY, strokeDash=[5, 4], strokeWidth=1.5)
    return rule.encode(y=f"{value}:Q")


@cache
def learning_rate() -> Figure:
    """Frame: ``lr`` (step, lr)."""
    chart = _line("lr", "lr", "learning rate", theme.BROWN, zero=True)
    return Figure("lr", "Learning rate", "As the optimiser used it at each step.", chart, ("lr",))


@cache
def rate_over_tokens() -> Figure:
    """Frame ``rates`` (tokens, rate, stage): the plan of a stage behind the one that it goes on from."""
    x = alt.X("tokens:Q", title="tokens", scale=alt.Scale(nice=False), axis=alt.Axis(labelExpr=COUNT, tickCount=6, grid=False))  # fmt: skip
    tips = ["stage:N", alt.Tooltip("tokens:Q", format=",.4~s"), alt.Tooltip("rate:Q", format=".3~g")]
    colour = alt.Color("stage:N", sort=None, title=None, scale=alt.Scale(range=[theme.GREY, theme.BLUE]))
    lines = alt.Chart(alt.NamedData("rates"), width=theme.WIDTH, height=theme.HEIGHT).mark_line(strokeWidth=2)
    chart = lines.encode(x=x, y=value_axis("rate", "learning rate", zero=True), color=colour, tooltip=tips)
    words = "Planned, over all tokens. Grey: the training that this one goes on from."
    return Figure("rates", "Learning rate", words, chart, ("rates",))


@cache
def grad_norm() -> Figure:
    """Frame: ``grad_norm`` (step, grad_norm)."""
    chart = _line("grad_norm", "grad_norm", "L2 norm", theme.BROWN, log=True)
    return Figure("grad_norm", "Gradient norm", "Global L2 norm before clipping, logarithmic.", chart, ("grad_norm",))


@cache
def reward() -> Figure:
    """Frame: ``reward`` (step, reward, smooth)."""
    chart = (
        _faint("reward", "reward", theme.GREEN) + _line("reward", "smooth", "mean reward", theme.GREEN)
    ).properties(width=theme.WIDTH, height=theme.HEIGHT + 40)
    return Figure(
        "reward",
        "Reward",
        "Mean reward of a step's completions on training prompts (line smoothed). It is no evaluation.",
        chart,
        ("reward",),
    )


@cache
def metric(name: str, title: str, caption: str, unit: str) -> Figure:
    """Any other logged metric; frame: `name` (step, `name`)."""
    return Figure(name, title, caption, _line(name, name, unit, theme.SKY), (name,))
