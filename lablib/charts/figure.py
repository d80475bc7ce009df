"""`Figure`: a chart on named data, with the words that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from lablib.charts import theme
from lablib.charts.sample import Frame, to_rows


@dataclass(frozen=True)
class Figure:
    """A chart without data: frames are put in by name, so a live update moves numbers only, never the specification."""

    name: str
    title: str
    """Sentence case; what the chart shows or, better, says."""
    caption: str
    """How to read it, with units."""
    chart: alt.Chart | alt.LayerChart
    data: tuple[str, ...]
    """Names of the frames that it draws, the essential one first."""

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Vega-Lite for a live page, which gives it the page's colour and its container's width."""
        return self._render(live=True)

    def still(self, frames: Mapping[str, Frame]) -> dict[str, Any]:
        """Vega-Lite with the data inside and literal light colours, for a picture."""
        return self._render(live=False) | {"datasets": {name: to_rows(frames.get(name, {})) for name in self.data}}

    def _render(self, live: bool) -> dict[str, Any]:
        sized = self.chart.properties(description=f"{self.title}. {self.caption}")
        made: dict[str, Any] = sized.to_dict(validate=False)
        return made | {"config": theme.config(live), "autosize": {"type": "fit-x", "contains": "padding"}}

    def words(self) -> dict[str, Any]:
        """Everything but the specification, for a page."""
        return {"name": self.name, "title": self.title, "caption": self.caption, "data": list(self.data)}
