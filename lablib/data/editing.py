"""Edits: steps of the funnel that change documents' texts, and which documents do not survive their edit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lablib.data.corpus import SHORTEST, Corpus
from lablib.data.documents import Document, Report, silent

KEPT = 1 << 28
"""Characters of edited texts that a plan keeps, so that carrying it out need not edit them again; the rest it does."""
TOO_SHORT = f"under {SHORTEST} characters are left"
"""Why a document goes of which an edit leaves that little."""
SHOWN, LEAD = 600, 200
"""Characters of a sample, and how many of them stand before the first change."""


@dataclass(frozen=True)
class Edited:
    """A text after an edit."""

    text: str
    found: Mapping[str, int] = field(default_factory=dict)
    """What was taken out or replaced, by kind."""
    last: bool = False
    """Whether the text may hold the only copy of something that is taken out of every other: it stays, however short."""


class Look(Protocol):
    """One round of looking at a corpus in parts, each of which any worker may look at."""

    def see(self, part: Corpus, size: float, known: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """Leave in `folder` what is seen of one part of a corpus of `size` bytes; `known` was gathered in earlier rounds."""

    def gather(self, seen: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """Leave in `folder` what all parts together hold, the same whatever the cut."""


@runtime_checkable
class Edit(Protocol):
    """Something that changes texts."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""

    def key(self) -> str:
        """Changes exactly when the same corpus may be edited otherwise."""

    def edits(self, before: Corpus, report: Report = silent) -> Callable[[Document], Edited]:
        """The edit of each document, once the corpus has been looked at; a pure function."""

    @property
    def looks(self) -> Sequence[Look]:
        """The rounds in which a corpus in parts is looked at instead; none where a document's edit is its own affair."""

    def informed(self, seen: Sequence[Path], known: Sequence[Path]) -> Callable[[Document], Edited]:
        """The same edit for the documents of a part, of which each round saw `seen`, and `known` of all."""


@dataclass(frozen=True)
class Plan:
    """What an edit does to a corpus, known before anything is written."""

    edit: Callable[[Document], Edited]
    changed: frozenset[str]
    """SHA-256, before the edit, of the documents whose text changes."""
    gone: Mapping[str, str]
    """SHA-256, before the edit, of the documents that go, with the reason."""


def every(corpus: Corpus, report: Report = silent) -> Iterator[Document]:
    """The documents of a corpus, domain by domain; at each one `report` hears how many domains are done."""
    domains = corpus.domains
    for done, domain in enumerate(domains):
        for document in corpus.documents(domain):
            report(done, len(domains))
            yield document


def plan(before: Corpus, step: Edit, report: Report = silent) -> Plan:
    """Who changes and who goes: a text left under `SHORTEST` characters, unless it is the `last` with something, and of
    texts that became equal all but one.

    A document that has the text unedited stays; without one, that of the least SHA-256 before the edit: the same one
    whatever the order. Memory: some 200 bytes a document that changes, 100 for any other, and `KEPT` characters.
    """
    edit = step.edits(before, report)
    after: dict[str, str] = {}
    unchanged: set[str] = set()
    gone: dict[str, str] = {}
    kept: dict[str, Edited] = {}
    room = KEPT
    for document in every(before, report):
        made = edit(document)
        old, text = document.sha256, made.text
        if text == document.text:
            unchanged.add(old)
        elif too_short(made):
            gone[old] = TOO_SHORT
        else:
            after[old] = hashlib.sha256(text.encode()).hexdigest()
            if (room := room - len(text)) >= 0:
                kept[old] = made
    stays: dict[str, str] = {}
    for old in sorted(after):
        new = after[old]
        twin = new if new in unchanged else stays.setdefault(new, old)
        if twin != old:
            gone[old] = equal_to(twin)
    return Plan(lambda document: kept.get(document.sha256) or edit(document), frozenset(after).union(gone), gone)


def too_short(made: Edited) -> bool:
    """Whether a document goes for what its edit leaves of it."""
    return len(made.text.strip()) < SHORTEST and not made.last


def equal_to(twin: str) -> str:
    """Why a document goes whose text is that of another one now, which had this SHA-256 before its edit."""
    return f"equal to another one now [{twin[:12]}]"


def sample(document: Document, made: Edited) -> dict[str, Any]:
    """A changed document as it is shown: both texts around the first change, and what was found in it."""
    begin = max(0, shared_prefix(document.text, made.text) - LEAD)
    excerpts = {"before": document.text[begin : begin + SHOWN], "after": made.text[begin : begin + SHOWN]}
    known = {"domain": document.domain, "source": document.source, "sha256": document.sha256}
    return {**known, "found": dict(made.found), **excerpts}


def shared_prefix(one: str, other: str) -> int:
    """Characters that two texts share at their start, by halving what is unknown."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
