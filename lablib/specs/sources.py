"""Public sources of training text: size, licence, usual share and risk of each, with where every figure was read.

Addresses are those of the data sets' cards. None was opened while this table was made: there was no way to the hub.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Literal, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.catalog import Table
from lablib.specs.units import show_count

Level = Literal["paper", "secondary", "memory"]
"""paper: the paper's, card's or repository's own text was read; secondary: others' notes of it; memory: not verified."""
Kind = Literal["web", "code", "books", "papers", "reference", "dialogue", "math", "multilingual", "synthetic", "mixed"]


class Figure(Spec):
    """A number and where it comes from."""

    value: float = Field(gt=0)
    level: Level
    source: str = Field(min_length=1)
    """What was read, and when."""

    def told(self, unit: str) -> str:
        """The number with its source, as a person reads it."""
        sure = "" if self.level == "paper" else f", {'not verified' if self.level == 'memory' else 'second-hand'}"
        return f"{show_count(self.value)} {unit} ({self.source}{sure})"


class PublicSource(Spec):
    """A public source of text; what is not known is None, and nothing is estimated."""

    name: str
    title: str
    kind: Kind
    tokens: Figure | None = None
    bytes: Figure | None = None
    documents: Figure | None = None
    licence: str
    """What it states; the rights of the texts in it are their authors'."""
    licence_level: Level
    shares: tuple[float, float]
    """Usual share of a pretraining mixture, in percent of its tokens, from and to."""
    share_source: str
    share_level: Level
    risk: str
    address: str = ""
    """What ``Prepare(corpus=…)`` takes; empty where the hub has no text that it can stream."""
    how: str = ""
    """How to read it instead."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if bool(self.address) == bool(self.how):
            raise ValueError(f"{self.name}: give an address, or how it is read without one")
        if not 0 < self.shares[0] <= self.shares[1] <= 100:
            raise ValueError(f"{self.name}: shares={self.shares} must be percents, the smaller first")
        if self.share_level != "memory" and not self.share_source:
            raise ValueError(f"{self.name}: say where the share was read, or that it is from memory")
        return self

    @property
    def usual(self) -> str:
        """The usual share as text."""
        low, high = self.shares
        return f"{low:g} %" if low == high else f"{low:g} to {high:g} %"

    def facts(self) -> dict[str, str]:
        """Everything as text, each figure with its source: two columns of a table."""
        unsure = {"paper": "", "secondary": " (second-hand)", "memory": " (not verified)"}
        sizes = {"tokens": self.tokens, "bytes": self.bytes, "documents": self.documents}
        share = f"{self.usual} ({self.share_source})" if self.share_source else f"{self.usual} (not verified)"
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            **{unit: figure.told(unit) if figure else "not known" for unit, figure in sizes.items()},
            "licence": self.licence + unsure[self.licence_level],
            "usual share": share,
            "risk": self.risk,
            "read it with": f"Prepare(corpus={self.address!r}, max_bytes=…)" if self.address else self.how,
        }

    def summary(self) -> dict[str, str]:
        """What a notebook shows."""
        return self.facts()


def _read() -> dict[str, PublicSource]:
    text = files("lablib.specs").joinpath("catalogue", "sources.json").read_text(encoding="utf-8")
    return {name: PublicSource(name=name, **row) for name, row in json.loads(text).items()}


sources: Table[PublicSource] = Table("public source", _read)
"""Public sources by name."""
