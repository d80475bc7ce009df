"""The charts, against the contrast formula, Vega-Lite's schema and plain arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib import charts
from lablib.charts import Figure, sample, theme

FIGURES = [
    charts.loss(),
    charts.speed(),
    charts.memory(),
    charts.learning_rate(),
    charts.grad_norm(),
    charts.reward(),
    charts.metric("kl", "KL", "Distance.", "nats"),
    charts.plan_vs_actual("time", "Time", "s"),
    charts.memory_parts(),
    charts.shares("corpus", "Corpus", "Tokens.", "tokens"),
    charts.sweep("days", "Days", "Time.", "GPUs", "days"),
    charts.scores(),
    charts.coordinates(),
    charts.loss_by_domain(),
    charts.mixture_read(),
    charts.mixture_over_training(),
    charts.rate_over_tokens(),
]


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("ground", ["#FFFFFF", "#111827"])
@pytest.mark.parametrize("colour", [*theme.LAB6, theme.GREY])
def test_colours_stand_out_on_light_and_dark(colour: str, ground: str) -> None:
    """WCAG 1.4.11: graphics need a contrast of 3:1."""
    bright, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 3.0


def named_data(spec: Any) -> set[str]:
    """Every named data source that a specification reads."""
    if isinstance(spec, dict):
        own = {spec["data"]["name"]} if isinstance(spec.get("data"), dict) and "name" in spec["data"] else set()
        return own.union(*map(named_data, spec.values())) if spec else own
    return set().union(*map(named_data, spec)) if isinstance(spec, list) else set()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_is_valid_vega_lite_on_the_frames_that_it_names(figure: Figure) -> None:
    """The schema of Vega-Lite itself judges; a page fills exactly the frames in `data`."""
    figure.chart.to_dict(validate=True)
    assert named_data(figure.spec) == set(figure.data)
    assert "values" not in str(figure.spec.get("data", ""))
    assert figure.title and figure.caption and figure.spec["description"].startswith(figure.title)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_live_charts_inherit_the_pages_colour_and_stills_do_not(figure: Figure) -> None:
    """A still picture has no page: `currentColor` would be black on black somewhere."""
    assert "currentColor" in str(figure.spec)
    assert "currentColor" not in str(figure.still({}))


def test_a_picture_holds_the_data() -> None:
    """One mark for each evaluation score, drawn by Vega itself."""
    frame = {
        "task": ["sums"] * 3,
        "model": ["base", "sft", "grpo"],
        "value": [0.1, 0.5, 0.6],
        "low": [0.0, 0.4, 0.5],
        "high": [0.2, 0.6, 0.7],
    }
    picture = charts.svg(charts.scores().still({"scores": frame}))
    assert picture.count('aria-roledescription="point"') == 3
    assert all(f"model: {name}" in picture for name in ("base", "sft", "grpo"))


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.integers(4, 60))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], most: int) -> None:
    """Never more than asked, never a value that was not there, never a lost spike."""
    values = [sample.rounded(value) for value in values]
    thinned = charts.thin({"step": list(range(len(values))), "loss": values}, "loss", most)
    assert len(thinned["step"]) <= most or len(values) <= most
    assert thinned["step"] == sorted(set(thinned["step"]))
    assert all(values[step] == loss for step, loss in zip(thinned["step"], thinned["loss"], strict=True))
    assert thinned["step"][0] == 0 and thinned["step"][-1] == len(values) - 1
    assert min(thinned["loss"]) == min(values) and max(thinned["loss"]) == max(values)


def test_a_million_steps_become_a_thousand_points() -> None:
    """And a single spike among them is still drawn."""
    values = [2.0] * 200_000
    values[123_457] = 9.0
    thinned = charts.thin({"step": list(range(len(values))), "loss": values}, "loss")
    assert len(thinned["loss"]) <= 1000 and 9.0 in thinned["loss"]


def test_smoothing_is_the_corrected_moving_average() -> None:
    """A constant stays itself from the first point; the closed form is Adam's corrected first moment."""
    assert charts.smooth([3.0] * 5, 20) == pytest.approx([3.0] * 5)
    values, beta = [4.0, 1.0, 2.5, 0.5], 1 - 2 / 8
    closed = sum((1 - beta) * beta ** (3 - i) * value for i, value in enumerate(values)) / (1 - beta**4)
    assert charts.smooth(values, 7)[-1] == pytest.approx(closed)


def test_frames_hold_no_number_that_json_cannot() -> None:
    """NaN, infinity and missing values leave their row out."""
    rows = [{"step": 0, "loss": math.nan}, {"step": 1, "loss": math.inf}, {"step": 2}, {"step": 3, "loss": 1.23456789}]
    assert charts.series(rows, "loss") == {"step": [3], "loss": [1.23457]}
    assert sample.rounded(True) is True
