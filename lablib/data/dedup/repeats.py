"""Text that many documents share: found over a corpus, and taken out of each.

Lines, sentences, three sentences in a row and passages of so many words are all windows over a document's words. Two are
the same when they have the same words in the same order (`lablib.data.dedup.shingles.normalised`); blank lines and rules
of dashes have none and are never counted. CCNet (arXiv 1911.00359) drops repeated paragraphs, C4 (arXiv 1910.10683) spans
of three sentences, Lee et al. (arXiv 2107.06423) any 50 tokens: the union of all repeated windows of 50 words is what a
suffix array would find, in memory that the repeated text decides and not the corpus.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lablib.data.corpus import Corpus
from lablib.data.dedup import pieces, rounds, windows
from lablib.data.dedup.pieces import Laid
from lablib.data.dedup.shingles import BASE, Batch, Hashes, Ints, distinct, mix
from lablib.data.dedup.windows import Found, Windows
from lablib.data.documents import Document, Report, silent
from lablib.data.editing import Edited, Look, every
from lablib.specs import digest
from lablib.specs.dedup import Repeats

VERSION = 2
"""Raised when the same settings would edit otherwise."""
SIEVE = 1 << 27
"""Counters of a byte in which windows are counted roughly first: 128 MB hold some 100 million of them well. A power of 2."""
BATCH = 1 << 18
"""Characters of documents whose windows are found together."""
SPAN = 3
"""Sentences of a span."""
_MANY = {"line": "lines", "sentence": "sentences", "span": "sentences", "passage": "words"}
"""What is counted as taken out."""


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
        size = sum(before.bytes(domain) for domain in before.domains)
        found = self.find(every(before, report), self.sieve(every(before, report), size))
        return lambda document: self.strip(document, found)

    @property
    def looks(self) -> tuple[Look, ...]:
        """Counters, then windows (`lablib.data.dedup.rounds`)."""
        return rounds.Sieving(self), rounds.Finding(self)

    def informed(self, seen: Sequence[Path], known: Sequence[Path]) -> Callable[[Document], Edited]:
        """`strip`, for the documents of a part."""
        found = rounds.found(known[-1], seen[-1])
        return lambda document: self.strip(document, found)

    def sieve(self, documents: Iterable[Document], size: float = SIEVE) -> NDArray[np.uint8]:
        """Counters (SIEVE,) of the documents with a window of each remainder, which no window's own count exceeds; fewer
        where the documents are known to have less than that `size` in bytes."""
        counts = np.zeros(min(SIEVE, 1 << max(16, math.ceil(4 * size).bit_length())), np.uint8)
        for _, found in self._batches(documents):
            places, many = np.unique(distinct(found).hashes & np.uint64(len(counts) - 1), return_counts=True)
            counts[places] = np.minimum(counts[places] + many, 255)
        return counts

    def find(self, documents: Iterable[Document], sieve: NDArray[np.uint8] | None = None) -> Found:
        """The repeated windows of a corpus; a `sieve` of the same documents changes what is kept in memory, not what is
        found. Memory: 24 bytes for each distinct window that the sieve lets through, at most twice that for a moment, and
        some 60 for each document with such a window."""
        return windows.shared(self.candidates(documents, sieve), self.spec.least)

    def candidates(self, documents: Iterable[Document], sieve: NDArray[np.uint8] | None = None) -> Found:
        """The distinct windows that the `sieve` lets through, however many documents hold each."""
        holders: set[int] = set()

        def told() -> Iterator[Found]:
            for batch, seen in self._batches(documents):
                if sieve is not None:
                    enough = min(self.spec.least, 255)
                    seen = _through(seen, sieve[seen.hashes & np.uint64(len(sieve) - 1)] >= enough)
                found, counts = distinct(seen), np.diff(seen.offsets)
                marks = np.array(
                    [_mark(one) if many else 0 for one, many in zip(batch, counts, strict=True)], np.uint64
                )
                holders.update(marks[counts > 0].tolist())
                home = np.repeat(marks, np.diff(found.offsets))
                yield Found(found.hashes, np.ones(len(home), np.int64), home)

        return replace(windows.folded(told()), holders=frozenset(holders))

    def strip(self, document: Document, found: Found) -> Edited:
        """The text of a document that `find` looked at, without the windows that it gave; what stays is unchanged, character
        for character."""
        if not len(found) or int(_mark(document)) not in found.holders:
            return Edited(document.text)
        unit = self.spec.unit
        if unit == "passage" and not self._gone(self.windows(document.text), found, document).any():
            return Edited(document.text)  # its pieces are many
        ends = pieces.ends(document.text, unit)
        laid = pieces.lay_out([document.text], [ends])
        seen = self._windows(laid)
        gone = self._gone(seen, found, document)
        if not gone.any():
            return Edited(document.text)
        change = np.zeros(len(laid.words) + 1, np.int64)
        np.add.at(change, seen.begins[gone], 1)
        np.add.at(change, seen.ends[gone], -1)
        covered = np.cumsum(change)[:-1] > 0
        goes = _pieces_that_go(covered, laid.offsets, joined=unit in ("span", "passage"))
        several = zip(pieces.cut(document.text, ends), goes.tolist(), strict=True)
        text = "".join(piece for piece, out in several if not out)
        taken = {_MANY[unit]: int((goes & (np.diff(laid.offsets) > 0)).sum())}
        last = self.spec.keep_one and bool(text.strip()) and int(_mark(document)) in found.homes
        return Edited(text, taken, last)

    def _batches(self, documents: Iterable[Document]) -> Iterator[tuple[list[Document], Batch]]:
        """Documents of `BATCH` characters together, and the hashes of their windows in order."""
        batch: list[Document] = []
        room = BATCH
        for document in chain(documents, [None]):
            if document is not None:
                batch.append(document)
                room -= len(document.text)
            if batch and (document is None or room <= 0):
                laid = self._laid([one.text for one in batch])
                seen = self._windows(laid)
                owners = laid.texts[np.searchsorted(laid.offsets, seen.begins, side="right") - 1]
                yield batch, Batch(seen.hashes, np.searchsorted(owners, np.arange(len(batch) + 1)))
                batch, room = [], BATCH

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
        return pieces.cut(text, pieces.ends(text, self.spec.unit))

    def windows(self, text: str) -> Windows:
        """The windows of a text that are long enough to be counted."""
        return self._windows(self._laid([text]))

    def _laid(self, texts: Sequence[str]) -> Laid:
        """Passages need no pieces, which are many."""
        unit = self.spec.unit
        ends = [np.array([len(text)]) if unit == "passage" else pieces.ends(text, unit) for text in texts]
        return pieces.lay_out(texts, ends)

    def _windows(self, laid: Laid) -> Windows:
        spec = self.spec
        if spec.unit == "passage":
            begins = np.arange(max(0, len(laid.words) - spec.fewest + 1))
            last = np.append(laid.texts, -1)[np.searchsorted(laid.offsets, begins + spec.fewest - 1, side="right") - 1]
            first = np.append(laid.texts, -1)[np.searchsorted(laid.offsets, begins, side="right") - 1]
            begins = begins[first == last]
            return _hashed(laid.words, begins, begins + spec.fewest)
        worded = np.flatnonzero(np.diff(laid.offsets))
        width = SPAN if spec.unit == "span" else 1
        firsts, lasts = worded[: max(0, len(worded) - width + 1)], worded[width - 1 :]
        begins, ends = laid.offsets[firsts], laid.offsets[lasts + 1]
        long = (ends - begins >= spec.fewest) & (laid.texts[firsts] == laid.texts[lasts])
        return _hashed(laid.words, begins[long], ends[long])


def _through(windows: Batch, chosen: NDArray[np.bool_]) -> Batch:
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(chosen)])
    return Batch(windows.hashes[chosen], before[windows.offsets])


def _hashed(words: Hashes, begins: Ints, ends: Ints) -> Windows:
    """Windows with a hash of their words: a polynomial modulo 2^64, all of them from prefix sums."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * _powers(BASE, len(words)), dtype=np.uint64)])
    made = (sums[ends] - sums[begins]) * _powers(pow(BASE, -1, 1 << 64), len(words))[begins]
    return Windows(begins, ends, mix(made + (ends - begins).astype(np.uint64)))


def _powers(base: int, count: int) -> Hashes:
    return _first_powers(base)[:count] if count <= BATCH else _made_powers(base, count)


@functools.cache
def _first_powers(base: int) -> Hashes:
    return _made_powers(base, BATCH)


def _made_powers(base: int, count: int) -> Hashes:
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
