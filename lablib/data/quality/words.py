"""Signals of a document's words and symbols (Gopher, arXiv 2112.11446 §A.1.1)."""

from __future__ import annotations

import numpy as np
import polars as pl

from lablib.data.quality.splitters import Floats, Words, ratio

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's eight; a document needs two of them, in lower case as datatrove and Dolma have it."""


def wording(texts: pl.Series, words: Words) -> dict[str, Floats]:
    """``words`` and ``word_length`` leave out what is all punctuation; ``alphabetic_words`` is the share of words with a
    letter; ``hash_ratio`` and ``ellipsis_ratio`` are symbols a word; ``stop_words`` counts distinct ones."""
    proper = words.distinct.str.contains(r"[^\p{P}\p{S}\p{C}]").to_numpy()
    lengths = np.zeros(len(words.distinct))
    lengths[words.code] = words.length
    count = words.total(proper)
    symbols = _symbols(texts)
    return {
        "words": count,
        "word_length": ratio(words.total(proper * lengths), count),
        "hash_ratio": ratio(symbols["#"], words.counts),
        "ellipsis_ratio": ratio(symbols["..."] + symbols["…"], words.counts),
        "alphabetic_words": ratio(words.total(words.distinct.str.contains(r"\p{L}").to_numpy()), words.counts),
        "stop_words": _stop_words(words),
    }


def _symbols(texts: pl.Series) -> dict[str, Floats]:
    return {
        symbol: texts.str.count_matches(symbol, literal=True).to_numpy().astype(np.float64)
        for symbol in ("#", "...", "…")
    }


def _stop_words(words: Words) -> Floats:
    """Distinct stop words in each text."""
    stop = np.flatnonzero(words.distinct.is_in(STOP_WORDS).to_numpy())
    number = np.full(len(words.distinct), -1)
    number[stop] = np.arange(len(stop))
    found = number[words.code]
    seen = np.zeros((words.documents, len(STOP_WORDS)), bool)
    seen[words.document[found >= 0], found[found >= 0]] = True
    return seen.sum(1).astype(np.float64)
