"""Text to hashed shingles, many documents at a time in NumPy: no Python object is made for a word.

A text is normalised (`lablib.specs.dedup.Dedup.normaliser`), laid out as code points, and cut into words where the kind
of character changes. A word's hash is a polynomial of its code points modulo 2^64, so that prefix sums give all of them
at once; a shingle's hash mixes those of its words. Two given shingles that differ share a hash with a probability of
about 2^-64: 10^-13 for any two shingles of a pair of documents of 1,000 words each.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

PIECE = 1 << 16
"""Characters that are laid out at a time, so that the arrays (40 bytes a character) stay in a core's cache."""
BREAK, WORD, LONE, DROPPED = 0, 1, 2, 3
"""Kinds of characters: between words, in a word, a word of its own, invisible."""
BASE = 0x9E3779B97F4A7C15
"""Odd, so that it has an inverse modulo 2^64: 2^64 over the golden ratio (Knuth, TAOCP 6.4)."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")
"""How the names of characters begin in scripts that are written without spaces (Unicode Standard Annex 14)."""
SELECTOR = "VARIATION SELECTOR"
PLANE = 1 << 16


@dataclass(frozen=True)
class Batch:
    """Hashes of several documents in one array."""

    hashes: Hashes
    offsets: Ints
    """Document i has ``hashes[offsets[i] : offsets[i + 1]]``."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Hashes:
        return self.hashes[self.offsets[index] : self.offsets[index + 1]]


class Words(NamedTuple):
    """Words of several texts, in order."""

    hashes: Hashes
    texts: Ints
    """The number of the text that each is in."""
    starts: Ints
    """The place of each one's first character in its text, normalised."""


def shingle_sets(texts: Sequence[str], ngram: int) -> Batch:
    """Each text's set of hashed `ngram`-word shingles, sorted; a shorter text is one shingle, one without words is none."""
    return distinct(_windows(word_hashes(texts), ngram))


def normalised(text: str) -> str:
    """NFKC, casefold, and NFKC again for what casefolding took apart (Unicode 3.13, D146)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def word_hashes(texts: Sequence[str]) -> Batch:
    """A hash for each word of each text, in order."""
    words = words_of(map(normalised, texts))
    return Batch(words.hashes, _offsets(np.bincount(words.texts, minlength=len(texts))))


def words_of(texts: Iterable[str]) -> Words:
    """The words of texts that are normalised already."""
    made = [Words(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for numbers, begins, pieces in _layouts(texts):
        hashes, piece, starts = _piece_hashes(pieces)
        made.append(Words(hashes, np.array(numbers, np.int64)[piece], starts + np.array(begins, np.int64)[piece]))
    return Words(*(np.concatenate(column) for column in zip(*made, strict=True)))


def _layouts(texts: Iterable[str]) -> Iterator[tuple[list[int], list[int], list[str]]]:
    """(Numbers of the texts, places in them, pieces that begin there) that fit into `PIECE` characters together."""
    numbers: list[int] = []
    begins: list[int] = []
    pieces: list[str] = []
    room = PIECE
    for number, text in enumerate(texts):
        begin = 0
        for piece in _cut(text):
            if len(piece) + 1 > room and pieces:
                yield numbers, begins, pieces
                numbers, begins, pieces, room = [], [], [], PIECE
            numbers.append(number)
            begins.append(begin)
            pieces.append(piece)
            begin += len(piece)
            room -= len(piece) + 1
    if pieces:
        yield numbers, begins, pieces


def _cut(text: str) -> Iterator[str]:
    """Pieces shorter than `PIECE`, ending at white space unless a word alone is longer."""
    begin = 0
    while len(text) - begin >= PIECE:
        most = begin + PIECE - 1
        end = max(text.rfind(" ", begin + 1, most), text.rfind("\n", begin + 1, most))
        end = end if end > begin else most
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _piece_hashes(pieces: Sequence[str]) -> Words:
    """Words with the number of the piece that each is in, and its place there."""
    text = "\n".join(pieces) + "\n"
    ends = np.cumsum([len(piece) + 1 for piece in pieces])
    begins, places = np.concatenate([[0], ends[:-1]]), None
    ascii_only = text.isascii()
    raw = text.encode("ascii") if ascii_only else text.encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, np.uint8 if ascii_only else np.uint32)
    kinds = _kinds(128 if ascii_only else sys.maxunicode + 1)[codes]
    if not ascii_only and (visible := kinds != DROPPED).sum() < len(kinds):
        codes, kinds, ends, places = (
            codes[visible],
            kinds[visible],
            np.cumsum(visible)[ends - 1],
            np.flatnonzero(visible),
        )
    joins = (kinds[1:] == WORD) & (kinds[:-1] == WORD)
    inside = kinds != BREAK
    firsts, stops = inside.copy(), inside.copy()
    firsts[1:] &= ~joins
    stops[:-1] &= ~joins
    starts, lasts = np.flatnonzero(firsts), np.flatnonzero(stops)
    powers, inverses = _powers()
    sums = np.multiply(codes, powers[: len(codes)], dtype=np.uint64)
    np.cumsum(sums, out=sums)
    words = (sums[lasts] - np.where(starts > 0, sums[starts - 1], np.uint64(0))) * inverses[starts]
    owners = np.searchsorted(ends, starts, side="right")
    return Words(mix(words), owners, (starts if places is None else places[starts]) - begins[owners])


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    """Powers of `BASE` and of its inverse modulo 2^64, for each place of a piece."""
    return tuple(
        np.multiply.accumulate(np.array([1] + [base] * PIECE, dtype=np.uint64))
        for base in (BASE, pow(BASE, -1, 1 << 64))
    )  # type: ignore[return-value]


@functools.cache
def _kinds(codes: int) -> NDArray[np.uint8]:
    """The kind of each code point below `codes`. Characters have planes 0 to 3; plane 14 has invisible ones only."""
    table = np.full(codes, BREAK, np.uint8)
    categories = map(unicodedata.category, map(chr, range(min(codes, 4 * PLANE))))
    for code, category in enumerate(categories):
        if category[0] in "LNM" or category == "Cf":
            table[code] = _kind(chr(code), category)
    table[14 * PLANE : 15 * PLANE] = DROPPED
    return table


def _kind(character: str, category: str) -> int:
    """Of a letter, digit, mark or format character."""
    if category == "Cf":
        return DROPPED
    name = unicodedata.name(character, "") if character > "\u0e00" or category == "Mn" else ""
    if category == "Mn" and name.startswith(SELECTOR):
        return DROPPED
    return LONE if character > "\u0e00" and name.startswith(UNSPACED) else WORD


def mix(values: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the value: the finaliser of SplitMix64 (Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def chain(columns: Sequence[Hashes]) -> Hashes:
    """One hash for each row of the columns, which the order of the columns matters to."""
    total = np.zeros_like(columns[0])
    for column in columns:
        total = total * np.uint64(BASE) + column
    return mix(total)


def _windows(words: Batch, ngram: int) -> Batch:
    """Each document's shingles in order."""
    words = _padded(words, ngram)
    counts = np.maximum(np.diff(words.offsets) - ngram + 1, 0)
    length = len(words.hashes) - ngram + 1
    if length < 1:
        return Batch(np.zeros(0, np.uint64), _offsets(counts))
    every = chain([words.hashes[at : at + length] for at in range(ngram)])
    offsets = _offsets(counts)
    return Batch(every[np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], counts)], offsets)


def _padded(words: Batch, ngram: int) -> Batch:
    """Documents of fewer than `ngram` words are filled up with zeros, so that all of their words make one shingle."""
    counts = np.diff(words.offsets)
    short = (counts > 0) & (counts < ngram)
    if not short.any():
        return words
    offsets = _offsets(np.where(short, ngram, counts))
    hashes = np.zeros(offsets[-1], np.uint64)
    hashes[np.arange(len(words.hashes)) + np.repeat(offsets[:-1] - words.offsets[:-1], counts)] = words.hashes
    return Batch(hashes, offsets)


def distinct(shingles: Batch) -> Batch:
    """Each document's hashes sorted and once."""
    hashes = shingles.hashes.copy()
    for begin, end in pairwise(shingles.offsets.tolist()):
        hashes[begin:end].sort()
    fresh = np.ones(len(hashes), bool)
    fresh[1:] = hashes[1:] != hashes[:-1]
    fresh[shingles.offsets[:-1][np.diff(shingles.offsets) > 0]] = True
    return Batch(hashes[fresh], np.concatenate([[0], np.cumsum(fresh)])[shingles.offsets])


def _offsets(counts: NDArray[np.int64]) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
