"""Text that many documents share: found over a corpus, and taken out of each.

Lines, sentences, three sentences in a row and passages of so many words are all windows over a document's words. Two are
the same when they have the same words in the same order (`lablib.data.dedup.shingles.normalised`); blank lines and rules
of dashes have none and are never counted. CCNet (arXiv 1911.00359) drops repeated paragraphs, C4 (arXiv 1910.10683) spans
of three sentences, Lee et al. (arXiv 2107.06423) any 50 tokens: the union of all repeated windows of 50 words is what a
suffix array would find, in memory that the repeated text decides and not the corpus.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.corpus import Corpus
from lablib.data.dedup.shingles import BASE, Batch, Hashes, Ints, mix, word_hashes
from lablib.data.documents import Document, Report, silent
from lablib.data.editing import Edited, every
from lablib.specs import digest
from lablib.specs.dedup import Repeats

VERSION = 2
"""Raised when the same settings would edit otherwise."""
PENDING = 1 << 20
"""Occurrences that are gathered before they are folded into the counts, 24 bytes each."""
SIEVE = 1 << 27
"""Counters of a byte in which windows are counted roughly first: 128 MB hold some 100 million of them well. A power of 2."""
SPAN = 3
"""Sentences of a span."""
_ENDS = {
    "line": re.compile(r"(?<=\n)"),
    "sentence": re.compile(r"(?<=\n)|(?<=[.!?])(?=[ \t])|(?<=[。！？])"),
    "passage": re.compile(r"(?<=\s)(?=\S)"),
}
"""Where one piece of text ends and the next begins; every character belongs to exactly one."""
_ENDS["span"] = _ENDS["sentence"]
_MANY = {"line": "lines", "sentence": "sentences", "span": "sentences", "passage": "words"}
"""What is counted as taken out."""


class Windows(NamedTuple):
    """Runs of words of one document: those of ``begins[i]`` up to ``ends[i]``, and the hash of each."""

    begins: Ints
    ends: Ints
    hashes: Hashes


@dataclass(frozen=True)
class Found:
    """Windows that enough documents share."""

    hashes: Hashes
    """Sorted."""
    documents: NDArray[np.int64]
    """How many documents hold each of them."""
    home: Hashes
    """The document whose copy stays where one is kept: the first 64 bits of the least SHA-256."""

    @cached_property
    def homes(self) -> frozenset[int]:
        """The documents that are home to any of them."""
        return frozenset(self.home.tolist())

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class RepeatedText:
    """The funnel's step that takes repeated text out (`lablib.data.editing.Edit`); the order of documents plays no part."""

    spec: Repeats

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "repeated text"

    def key(self) -> str:
        """Of the settings as used and of Unicode's tables."""
        settings = self.spec.model_dump(mode="json") | {"words": self.spec.fewest}
        return digest([VERSION, settings, unicodedata.unidata_version])

    def edits(self, before: Corpus, report: Report = silent) -> Callable[[Document], Edited]:
        """`strip`, of what the corpus repeats."""
        found = self.find(every(before, report), self.sieve(every(before, report)))
        return lambda document: self.strip(document, found)

    def sieve(self, documents: Iterable[Document]) -> NDArray[np.uint8]:
        """Counters (SIEVE,) of the documents with a window of each remainder, which no window's own count exceeds."""
        counts = np.zeros(SIEVE, np.uint8)
        for document in documents:
            places = np.unique(self.windows(document.text).hashes & np.uint64(SIEVE - 1))
            counts[places] += counts[places] < 255
        return counts

    def find(self, documents: Iterable[Document], sieve: NDArray[np.uint8] | None = None) -> Found:
        """The repeated windows of a corpus; a `sieve` of the same documents changes what is kept in memory, not what is
        found. Memory: 24 bytes for each distinct window that the sieve lets through, at most twice that for a moment."""
        waiting, size = [Found(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64))], 0
        for document in documents:
            hashes = np.unique(self.windows(document.text).hashes)
            if sieve is not None:
                hashes = hashes[sieve[hashes & np.uint64(SIEVE - 1)] >= min(self.spec.least, 255)]
            mark = np.full(len(hashes), _mark(document), np.uint64)
            waiting.append(Found(hashes, np.ones(len(hashes), np.int64), mark))
            size += len(hashes)
            if size >= max(PENDING, len(waiting[0])):
                waiting, size = [_folded(waiting)], 0
        found = _folded(waiting)
        many = found.documents >= self.spec.least
        return Found(found.hashes[many], found.documents[many], found.home[many])

    def strip(self, document: Document, found: Found) -> Edited:
        """The document's text without the windows that `find` gave; what stays is unchanged, character for character."""
        if not self._gone(self.windows(document.text), found, document).any():
            return Edited(document.text)
        pieces = self.split(document.text)
        words = word_hashes(pieces)
        seen = self._windows(words)
        gone = self._gone(seen, found, document)
        change = np.zeros(len(words.hashes) + 1, np.int64)
        np.add.at(change, seen.begins[gone], 1)
        np.add.at(change, seen.ends[gone], -1)
        covered = np.cumsum(change)[:-1] > 0
        goes = _pieces_that_go(covered, words.offsets, joined=self.spec.unit in ("span", "passage"))
        text = "".join(piece for piece, out in zip(pieces, goes.tolist(), strict=True) if not out)
        taken = {_MANY[self.spec.unit]: int((goes & (np.diff(words.offsets) > 0)).sum())}
        last = self.spec.keep_one and bool(text.strip()) and int(_mark(document)) in found.homes
        return Edited(text, taken, last)

    def _gone(self, seen: Windows, found: Found, document: Document) -> NDArray[np.bool_]:
        """Which windows of a document are repeats that do not stay here."""
        if not len(found):
            return np.zeros(len(seen.hashes), bool)
        places = np.minimum(np.searchsorted(found.hashes, seen.hashes), len(found) - 1)
        gone = found.hashes[places] == seen.hashes
        if self.spec.keep_one and gone.any():
            first = np.zeros(len(gone), bool)
            first[np.unique(seen.hashes, return_index=True)[1]] = True
            gone &= ~(first & (found.home[places] == _mark(document)))
        return gone

    def split(self, text: str) -> list[str]:
        """The text's pieces with the white space behind them; joined they are the text."""
        return [piece for piece in _ENDS[self.spec.unit].split(text) if piece]

    def windows(self, text: str) -> Windows:
        """The windows of a text that are long enough to be counted. Passages need no pieces, which are slow to cut."""
        return self._windows(word_hashes([text] if self.spec.unit == "passage" else self.split(text)))

    def _windows(self, pieces: Batch) -> Windows:
        spec = self.spec
        if spec.unit == "passage":
            begins = np.arange(max(0, len(pieces.hashes) - spec.fewest + 1))
            return _hashed(pieces.hashes, begins, begins + spec.fewest)
        worded = np.flatnonzero(np.diff(pieces.offsets))
        width = SPAN if spec.unit == "span" else 1
        begins = pieces.offsets[worded[: max(0, len(worded) - width + 1)]]
        ends = pieces.offsets[worded[width - 1 :] + 1]
        long = ends - begins >= spec.fewest
        return _hashed(pieces.hashes, begins[long], ends[long])


def _hashed(words: Hashes, begins: Ints, ends: Ints) -> Windows:
    """Windows with a hash of their words: a polynomial modulo 2^64, all of them from prefix sums."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * _powers(BASE, len(words)), dtype=np.uint64)])
    made = (sums[ends] - sums[begins]) * _powers(pow(BASE, -1, 1 << 64), len(words))[begins]
    return Windows(begins, ends, mix(made + (ends - begins).astype(np.uint64)))


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def _pieces_that_go(covered: NDArray[np.bool_], places: Ints, joined: bool) -> NDArray[np.bool_]:
    """Pieces all of whose words are covered; where pieces are `joined`, one without words goes with both neighbours."""
    total = np.concatenate([[0], np.cumsum(covered)])
    counts = np.diff(places)
    goes = (counts > 0) & (total[places[1:]] - total[places[:-1]] == counts)
    if joined and len(covered):
        before, after = np.maximum(places[:-1] - 1, 0), np.minimum(places[:-1], len(covered) - 1)
        inner = (places[:-1] > 0) & (places[:-1] < len(covered))
        goes |= (counts == 0) & inner & covered[before] & covered[after]
    return goes


def _mark(document: Document) -> np.uint64:
    return np.uint64(int(document.sha256[:16], 16))


def _folded(parts: Sequence[Found]) -> Found:
    """Counts of the same window added, and the least home kept."""
    hashes, documents, home = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "documents", "home")
    )
    if not len(hashes):
        return Found(hashes, documents, home)
    sort = np.argsort(hashes, kind="stable")
    hashes, documents, home = hashes[sort], documents[sort], home[sort]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    return Found(hashes[starts], np.add.reduceat(documents, starts), np.minimum.reduceat(home, starts))
