"""What a mid-training mixture asks of its documents: `Verify`, code whose own tests pass, and `Join`, long documents made of
the parts of a book or a repository. Both name domains; the usual ones are those of ``preset("midtrain")``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.data import Slug
from lablib.specs.units import Bytes

Domains = tuple[Slug, ...]
TESTED, LONG = "code-with-passing-tests", "long-documents"
"""Domains of ``preset("midtrain")``."""


class Verify(Spec):
    """Documents of these domains stay where their own tests pass, which a sandbox runs (`lablib.data.sandbox`).

    A document is one Python module; its tests are its asserts outside functions, ``test…`` functions and methods of ``Test…``
    classes that need no argument, unittest cases, and doctests. It has the standard library and nothing else.
    """

    domains: Domains = Field(default=(TESTED,), min_length=1)
    without: Literal["drop", "keep"] = "drop"
    """What becomes of documents that have no test."""
    seconds: float = Field(default=10.0, gt=0, le=600)
    """Longest that all tests of one document may take, by the clock."""
    memory: Bytes = 512 << 20
    """Most that they may take of memory."""


class Join(Spec):
    """Documents of these domains that stand under one folder, as a book's chapters and a repository's files do, become one
    document, in the order in which they were read."""

    domains: Domains = Field(default=(LONG,), min_length=1)
    folders: int = Field(default=2, ge=1)
    """How many parts of a document's source name what it belongs to: of ``long-documents/moby-dick/07.txt`` two, the domain's
    folder and the book's. A document with no more parts than that stands alone."""
    min_bytes: Bytes | None = None
    """Shorter documents go, joined or alone; a token of English is about 4 bytes (docs/data.md)."""
    max_bytes: Bytes = 16_000_000
    """Where the next part would make a document longer than this, another one begins. It bounds memory."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_bytes and self.min_bytes > self.max_bytes:
            raise ValueError(f"min_bytes={self.min_bytes} is more than max_bytes={self.max_bytes}; nothing would stay")
        return self
