"""Lines or sentences that many documents share: found over a corpus, and taken out of a text.

Two are the same when they have the same words in the same order (`lablib.data.dedup.shingles.normalised`); blank lines,
rules of dashes and lines of few words are never counted. CCNet (arXiv 1911.00359) drops repeated paragraphs, C4
(arXiv 1910.10683) repeated spans of three sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import BASE, Batch, Hashes, mix, word_hashes
from lablib.data.documents import Document
from lablib.specs import LabError

PENDING = 1 << 20
"""Occurrences that are gathered before they are folded into the counts, 24 bytes each."""
_ENDS = {
    "line": re.compile(r"(?<=\n)"),
    "sentence": re.compile(r"(?<=\n)|(?<=[.!?])(?=[ \t])|(?<=[。！？])"),
}
"""Where one unit ends and the next begins; every character belongs to exactly one."""


@dataclass(frozen=True)
class Repeats:
    """Units that enough documents share."""

    hashes: Hashes
    """Sorted."""
    documents: NDArray[np.int64]
    """How many documents hold each of them."""
    home: Hashes
    """The document whose copy stays where one is kept: the first 64 bits of the least SHA-256."""

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Stripped:
    """A text without its repeated units."""

    text: str
    units: int
    """Taken out."""
    characters: int
    """Taken out."""


@dataclass(frozen=True)
class RepeatedLines:
    """Which lines or sentences are repeated, and what a text is without them. The order of documents plays no part."""

    least: int = 10
    """Documents that must share a unit; a repetition inside one document does not count."""
    unit: Literal["line", "sentence"] = "line"
    words: int = 6
    """A unit of fewer words is left alone: ``return None`` is in every program."""
    keep_one: bool = False
    """Whether a unit stays in one document, that of the least SHA-256."""

    def __post_init__(self) -> None:
        """Refuse what would empty every document."""
        if self.least < 2:
            raise LabError(f"least={self.least}: a unit of one document is not repeated; use 2 or more")
        if self.words < 1:
            raise LabError(f"words={self.words}: blank lines are never repeats; use 1 or more")

    def find(self, documents: Iterable[Document]) -> Repeats:
        """The repeated units of a corpus. Memory: 24 bytes for each distinct unit, at most twice that for a moment."""
        folded = Repeats(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64))
        waiting, size = [folded], 0
        for document in documents:
            hashes = np.unique(self._hashes(self.split(document.text)))
            hashes = hashes[hashes != 0]
            mark = np.full(len(hashes), _mark(document), np.uint64)
            waiting.append(Repeats(hashes, np.ones(len(hashes), np.int64), mark))
            size += len(hashes)
            if size >= max(PENDING, len(waiting[0])):
                waiting, size = [_folded(waiting)], 0
        found = _folded(waiting)
        many = found.documents >= self.least
        return Repeats(found.hashes[many], found.documents[many], found.home[many])

    def strip(self, document: Document, repeats: Repeats) -> Stripped:
        """The document's text without the units that `find` gave; what stays is unchanged, character for character."""
        units = self.split(document.text)
        hashes = self._hashes(units)
        places = np.minimum(np.searchsorted(repeats.hashes, hashes), max(0, len(repeats) - 1))
        gone = repeats.hashes[places] == hashes if len(repeats) else np.zeros(len(units), bool)
        if self.keep_one and gone.any():
            first = np.zeros(len(units), bool)
            first[np.unique(hashes, return_index=True)[1]] = True
            gone &= ~(first & (repeats.home[places] == _mark(document)))
        text = "".join(unit for unit, goes in zip(units, gone.tolist(), strict=True) if not goes)
        return Stripped(text, int(gone.sum()), len(document.text) - len(text))

    def split(self, text: str) -> list[str]:
        """The text's units with their line ends; joined they are the text."""
        return [unit for unit in _ENDS[self.unit].split(text) if unit]

    def _hashes(self, units: Sequence[str]) -> Hashes:
        """A hash for each unit, 0 for one of too few words."""
        words = word_hashes(units)
        counts = np.diff(words.offsets)
        return np.where(counts >= self.words, _chained(words), np.uint64(0))


def _chained(words: Batch) -> Hashes:
    """A hash for each document's sequence of words."""
    counts = np.diff(words.offsets)
    made = np.zeros(len(counts), np.uint64)
    if not len(words.hashes):
        return made
    place = np.arange(len(words.hashes)) - np.repeat(words.offsets[:-1], counts)
    powers = np.multiply.accumulate(np.array([1] + [BASE] * int(counts.max()), dtype=np.uint64))
    terms = words.hashes * powers[place]
    made[counts > 0] = np.add.reduceat(terms, words.offsets[:-1][counts > 0])
    return mix(made + counts.astype(np.uint64))


def _mark(document: Document) -> np.uint64:
    return np.uint64(int(document.sha256[:16], 16))


def _folded(parts: Sequence[Repeats]) -> Repeats:
    """Counts of the same unit added, and the least home kept."""
    hashes, documents, home = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "documents", "home")
    )
    if not len(hashes):
        return Repeats(hashes, documents, home)
    sort = np.argsort(hashes, kind="stable")
    hashes, documents, home = hashes[sort], documents[sort], home[sort]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    return Repeats(hashes[starts], np.add.reduceat(documents, starts), np.minimum.reduceat(home, starts))
