"""`View`: what a screen says, independent of where it is shown: a notebook widget, a marimo app, a printed report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lablib.charts import Figure, Frame

Tone = Literal["plain", "good", "warn", "bad"]


@dataclass(frozen=True)
class Headline:
    """One number with its unit, and what to compare it with."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"
    """Colour is never alone: `value` or `note` says the same in words."""


@dataclass(frozen=True)
class Status:
    """A state as a glyph and a word."""

    glyph: str
    word: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class View:
    """One screen. Every text in it may come from a model or a user: renderers escape all of it."""

    title: str
    headlines: tuple[Headline, ...] = ()
    charts: tuple[Figure, ...] = ()
    frames: Mapping[str, Frame] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    subtitle: str = ""
    status: Status | None = None
    progress: float | None = None
    """Share done, 0 to 1."""
    failure: str = ""
    """Why it went wrong, with the remote traceback."""

    def words(self) -> dict[str, Any]:
        """JSON of everything but the charts' specifications, which never change and are sent once."""
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "status": None if self.status is None else vars(self.status),
            "progress": self.progress,
            "headlines": [vars(headline) for headline in self.headlines],
            "figures": [figure.words() for figure in self.charts],
            "frames": dict(self.frames),
            "tables": [{**vars(table), "rows": [list(row) for row in table.rows]} for table in self.tables],
            "notes": list(self.notes),
            "failure": self.failure,
        }

    def specs(self) -> dict[str, Any]:
        """Vega-Lite specification by figure name."""
        return {figure.name: figure.spec for figure in self.charts}
