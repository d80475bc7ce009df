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

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import Batch, Hashes, chain, normalised, word_hashes
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
_RUN = re.compile(r"\d+(?:\W+\d+)*")
_PIECE = 4000
"""Characters within which a word's place is looked for."""
_PROBES = (
    "The quick brown fox, 12 345.6 times, one by one",
    "it’s ﬁne — １２３ naïve Straße 日本語 x\u00ad\u200by",
    "",
)


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


def numerals(texts: Sequence[str]) -> Batch:
    """The words of each text, hashed in three ways, one after another: English numerals in digits, all numbers masked,
    numbers in digits masked."""
    forms = []
    for text in texts:
        plain = cleaned(text, "coverage")
        digits = _IN_WORDS.sub(lambda found: str(_VALUES[found.group()]), plain)
        forms += [digits, masked(digits), masked(plain)]
    return word_hashes(forms)


def masked(text: str) -> str:
    """Numbers replaced by a word that only says how many of them stand in a row, since "50 000" may be "50000"."""
    return _RUN.sub(_mask, text)


def _mask(run: re.Match[str]) -> str:
    return _DIGITS.sub(f"0x0run{len(_DIGITS.findall(run.group()))}", run.group())


def ngrams(hashes: Hashes, size: int) -> Hashes:
    """A hash for each run of `size` words, in order; none where there are fewer words."""
    count = len(hashes) - size + 1
    return chain([hashes[at : at + count] for at in range(size)]) if count > 0 else np.zeros(0, np.uint64)


@functools.cache
def fingerprint() -> str:
    """Changes when words are cut or hashed in another way: it is taken of what probe texts give, and of Unicode's tables."""
    made = [words(_PROBES, method).hashes.tolist() for method in ("coverage", "ngram13")]
    return digest([made, numerals(_PROBES).hashes.tolist(), unicodedata.unidata_version])


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
