"""Text to hashed n-grams, the same way for items and documents: accidents of typing go, numbers stay.

The hashes are those of `lablib.data.dedup.shingles`: NFKC, casefold, invisible characters out, words are runs of letters,
digits and marks. Apostrophes go first, and the marks inside a number: "don't", "don’t" and "dont" are one word, and so
are "1,000" and "1000" (and, for the same treatment of both sides, "3.50" and "350").
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import Batch, Hashes, chain, normalised, word_hashes, words_of
from lablib.specs import digest

_APOSTROPHES = "'’‘ʼ＇`´′"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_IN_NUMBER = re.compile(r"[.,:](?<=\d.)(?=\d)")
_UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety hundred"
_VALUES = {word: value for value, word in enumerate(_UNITS.split(), 1)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split(), 1)} | {"thousand": 1000, "million": 10**6}
_IN_WORDS = re.compile(rf"\b(?:{'|'.join(sorted(_VALUES, key=len, reverse=True))})\b")
_DIGITS = re.compile(r"\d+")
_SEAM = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
_LONGEST_NUMBER = 18
_PIECE = 4000
"""Characters within which a word's place is looked for."""
_PROBES = (
    "The quick brown fox, 12 345.6 times, one by one",
    "it’s ﬁne — １２３ naïve Straße 日本語 x\u00ad\u200by",
    "",
)


DIGITS, LETTERS = 1, 2
"""Kinds of numbers; a word is 0."""


class Tokens(NamedTuple):
    """Words of a text or an item for alignment."""

    hashes: NDArray[np.uint16]
    """16 bits of each word's hash: many words share them, so that no text can be read from an index of them."""
    numbers: NDArray[np.uint8]
    """0 for a word, `DIGITS` or `LETTERS` for a number, as it is written."""
    runs: NDArray[np.uint16]
    """The hash of the numbers in a row that a number is one of, written as one ("1 300" is "1300", "two hundred" "200"); 0 for
    a word."""
    first: NDArray[np.int64]
    """The token at which each word of `words` begins, and the number of tokens."""


def cleaned(text: str, method: str) -> str:
    """The text before its words are hashed: without apostrophes, or for ``ngram13`` without ASCII punctuation."""
    if method == "ngram13":
        return text.translate(_PUNCTUATION)
    text = normalised(text)
    for mark in _APOSTROPHES[:1] if text.isascii() else _APOSTROPHES:
        text = text.replace(mark, "")
    return _IN_NUMBER.sub("", text)


def words(texts: Sequence[str], method: str) -> Batch:
    """A hash for each word of each text."""
    return word_hashes([cleaned(text, method) for text in texts])


def tokens(text: str) -> Tokens:
    """A text's words as alignment sees them: letters and digits that touch are two ("4hour" is "4 hour"), and an English
    numeral is its digits."""
    plain = normalised(cleaned(text, "coverage"))
    plain = plain.translate({ord(mark): None for mark in set(plain) if unicodedata.category(mark) == "Cf"})
    cuts = np.array([found.start() for found in _SEAM.finditer(plain)], np.int64)
    split = _SEAM.sub(" ", plain)
    digits = words_of([_IN_WORDS.sub(lambda found: str(_VALUES[found.group()]), split)])
    written, spelled = words_of([split]), words_of([_DIGITS.sub("0x0", split)])
    in_digits, in_words = written.hashes != spelled.hashes, written.hashes != digits.hashes
    kinds = np.where(in_words, LETTERS, np.where(in_digits, DIGITS, 0)).astype(np.uint8)
    ends = np.append(written.starts, len(split))
    said = [split[ends[at] : ends[at + 1]] if kind else "" for at, kind in enumerate(kinds.tolist())]
    starts = written.starts - np.searchsorted(cuts + np.arange(len(cuts)), written.starts, side="right")
    first = words_of([plain]).starts
    return Tokens(_short(digits.hashes), kinds, _runs(said), np.append(np.searchsorted(starts, first), len(starts)))


def _short(hashes: Hashes) -> NDArray[np.uint16]:
    return (hashes >> np.uint64(48)).astype(np.uint16)


def _runs(said: list[str]) -> NDArray[np.uint16]:
    """`Tokens.runs` of tokens of which only the numbers are given, a word being empty."""
    edges = np.flatnonzero(np.diff([bool(one) for one in said], prepend=False, append=False))
    spans = edges.reshape(-1, 2).tolist()
    hashes = _short(words_of(["\n".join(_as_one(said[begin:end]) for begin, end in spans)]).hashes)
    runs = np.zeros(len(said), np.uint16)
    for (begin, end), run in zip(spans, hashes, strict=True):
        runs[begin:end] = run
    return runs


def _as_one(numbers: list[str]) -> str:
    """Numbers in a row as one: their digits together, or where some are in letters, their value as English says it."""
    values = [_VALUES.get("".join(re.findall(r"[^\W\d_]", one)), 0) for one in numbers]
    digits = ["".join(re.findall(r"\d", one)) for one in numbers]
    if not any(values):
        return "".join(digits) or "0"
    total = part = 0
    for value, digit in zip(values, digits, strict=True):
        if value < 100:
            part += value or int(digit[:_LONGEST_NUMBER] or 0)
        elif value == 100:
            part = max(part, 1) * 100
        else:
            total, part = total + max(part, 1) * value, 0
    return str(total + part)


def ngrams(hashes: Hashes, size: int) -> Hashes:
    """A hash for each run of `size` words, in order; none where there are fewer words."""
    count = len(hashes) - size + 1
    return chain([hashes[at : at + count] for at in range(size)]) if count > 0 else np.zeros(0, np.uint64)


@functools.cache
def fingerprint() -> str:
    """Changes when words are cut or hashed in another way: it is taken of what probe texts give, and of Unicode's tables."""
    made = [words(_PROBES, method).hashes.tolist() for method in ("coverage", "ngram13")]
    aligned = [[part.tolist() for part in tokens(probe)] for probe in _PROBES]
    return digest([made, aligned, unicodedata.unidata_version])


def place(text: str, first: int, last: int, method: str) -> tuple[int, int]:
    """Where the words from `first` up to `last` (excluded) begin and end in the text as it was written, in characters."""
    pieces = re.findall(rf"(?s).{{1,{_PIECE}}}(?:\s|\Z)|.{{1,{_PIECE}}}", text)
    counts = np.cumsum(np.diff(words(pieces, method).offsets))
    begin, end = (_place(pieces, counts, word, method) for word in (first, last))
    return begin, begin + len(re.sub(r"\s[\W_]*\Z", "", text[begin:end]))


def _place(pieces: Sequence[str], counts: NDArray[np.int64], word: int, method: str) -> int:
    """The last place before which there are at most `word` words: by halving the piece that it is in, since the number
    of words before a character never falls."""
    number = min(int(np.searchsorted(counts, word, side="right")), len(pieces) - 1)
    piece, left = pieces[number], word - (int(counts[number - 1]) if number else 0)
    low, high = 0, len(piece)
    while low < high:
        middle = (low + high + 1) // 2
        many = len(words([piece[:middle]], method).hashes) > left
        low, high = (low, middle - 1) if many else (middle, high)
    return sum(map(len, pieces[:number])) + low
