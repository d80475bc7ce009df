"""The S-curve of a banding, and what is found of copies by the share of their words that was changed."""

from __future__ import annotations

import altair as alt

from lablib.charts import theme
from lablib.charts.figure import Figure

_SIZE = {"width": theme.WIDTH, "height": theme.HEIGHT}


def s_curve() -> Figure:
    """Frames ``catch`` (jaccard, proposed, removed), ``threshold`` (jaccard), ``copy`` (jaccard, proposed)."""
    chart = _curves("catch", "jaccard", "Jaccard similarity of two documents", "threshold", "copy")
    words = (
        "Blue: share of the pairs that the bands propose. Green: those that go after verification. The dashed line is "
        "the threshold, the diamond the mean copy with the chosen share of words changed."
    )
    return Figure("s_curve", "What is found, by similarity", words, chart, ("catch", "threshold", "copy"))


def edit_curve() -> Figure:
    """Frames ``edits`` (rate, proposed, removed; rate in percent), ``rate`` (rate), ``chosen`` (rate, removed)."""
    chart = _curves("edits", "rate", "% of words changed", "rate", "chosen", "removed")
    words = "The same two shares over how much of a copy was changed; the diamond is the chosen rate."
    return Figure("edits", "What is found, by words changed", words, chart, ("edits", "rate", "chosen"))


def _curves(frame: str, field: str, title: str, rule: str, point: str, height: str = "proposed") -> alt.LayerChart:
    x = alt.X(f"{field}:Q", title=title, axis=alt.Axis(grid=False, tickCount=6))
    data = alt.Chart(alt.NamedData(frame), **_SIZE)
    tips = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in (field, "proposed", "removed")]
    lines = [
        data.mark_line(color=colour, strokeWidth=2, strokeDash=dash).encode(x=x, y=_share(name), tooltip=tips)
        for name, colour, dash in (("proposed", theme.BLUE, [6, 3]), ("removed", theme.GREEN, [1, 0]))
    ]
    line = alt.Chart(alt.NamedData(rule)).mark_rule(strokeWidth=1.5, strokeDash=[4, 3]).encode(x=x)
    mark = alt.Chart(alt.NamedData(point)).mark_point(
        color=theme.ORANGE, filled=True, size=70, shape="diamond", opacity=1
    )
    return lines[0] + lines[1] + line + mark.encode(x=x, y=_share(height))


def _share(field: str) -> alt.Y:
    scale = alt.Scale(domain=[0, 1])
    return alt.Y(f"{field}:Q", title="share of pairs", scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
