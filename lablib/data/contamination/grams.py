"""Text to hashed n-grams, the same way for items and documents: accidents of typing go, numbers stay.

The hashes are those of `lablib.data.dedup.shingles`: NFKC, casefold, invisible characters out, words are runs of letters,
digits and marks. Apostrophes go first, so that "don't", "don’t" and "dont" are one word.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Sequence

import numpy as np

from lablib.data.dedup.shingles import Batch, Hashes, chain, normalised, word_hashes
from lablib.specs import digest

_APOSTROPHES = "'’‘ʼ＇`´′"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MASK = "0x0number"
"""A word that stands for any number."""
_COUNTED = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million"
)
_NUMBER = re.compile(rf"\d+|\b(?:{'|'.join(sorted(_COUNTED.split(), key=len, reverse=True))})\b")
_PROBES = ("The quick brown fox, 12 345.6 times", "it’s ﬁne — １２３ na\u00efve Straße 日本語 x\u00ad\u200by", "")


def cleaned(text: str, method: str) -> str:
    """The text before its words are hashed: without apostrophes, or for ``ngram13`` without ASCII punctuation."""
    if method == "ngram13":
        return text.translate(_PUNCTUATION)
    for mark in _APOSTROPHES[:1] if text.isascii() else _APOSTROPHES:
        text = text.replace(mark, "")
    return text


def masked(text: str) -> str:
    """A cleaned text with every number, in digits or English words, replaced by one and the same word."""
    return _NUMBER.sub(_MASK, normalised(text))


def words(texts: Sequence[str], method: str) -> Batch:
    """A hash for each word of each text."""
    return word_hashes([cleaned(text, method) for text in texts])


def masked_words(text: str, method: str) -> Hashes:
    """Hashes of a text's words, all numbers having the same one; as many as `words` has for it."""
    return word_hashes([masked(cleaned(text, method))]).hashes


def ngrams(hashes: Hashes, size: int) -> Hashes:
    """A hash for each run of `size` words, in order; none where there are fewer words."""
    count = len(hashes) - size + 1
    return chain([hashes[at : at + count] for at in range(size)]) if count > 0 else np.zeros(0, np.uint64)


@functools.cache
def fingerprint() -> str:
    """Changes when words are cut or hashed in another way: it is taken of what probe texts give, and of Unicode's tables."""
    made = [words(_PROBES, method).hashes.tolist() for method in ("coverage", "ngram13")]
    return digest([made, [masked_words(text, "coverage").tolist() for text in _PROBES], unicodedata.unidata_version])
