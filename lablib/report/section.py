"""What a section of a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lablib.charts import Figure, Frame
from lablib.report.markup import Markup, tag


@dataclass(frozen=True)
class Drawing:
    """A figure with its frames, and the key of its place in the page."""

    key: str
    figure: Figure
    frames: Mapping[str, Frame]

    @property
    def place(self) -> Markup:
        """Where the page's script draws it."""
        return tag("div", class_="place", data_figure=self.key)


@dataclass(frozen=True)
class Section:
    """A headed part of the page; its drawings' places stand in `body`."""

    identity: str
    title: str
    body: Markup
    drawings: tuple[Drawing, ...] = ()
