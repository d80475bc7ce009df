"""A batch of texts as words: one array over all documents, each distinct word known by a number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from lablib.specs.cleaning import Splitter

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PATTERNS: dict[Splitter, str] = {"whitespace": r"\S+", "words": r"\w+", "tokens": r"\w+|[^\w\s]"}
"""``\\w`` is that of UTS #18: letters, marks, digits and connectors, so that a Hindi word stays whole."""


@dataclass(frozen=True)
class Words:
    """The words of `documents` texts in order."""

    documents: int
    document: Ints
    """Which text each word stands in, ascending."""
    code: Ints
    """Equal words have equal codes, 0 to ``len(distinct) - 1``."""
    length: Ints
    """Characters of each."""
    distinct: pl.Series
    """The word of each code."""

    @cached_property
    def counts(self) -> Ints:
        """Words of each text."""
        return np.bincount(self.document, minlength=self.documents)

    def total(self, of_code: npt.NDArray[np.generic]) -> Floats:
        """Sum over each text's words of a value that belongs to the word."""
        return np.asarray(np.bincount(self.document, of_code[self.code], self.documents), np.float64)


def split(texts: pl.Series, splitter: Splitter) -> Words:
    """Words of each text, by the splitter's pattern."""
    lists = texts.str.extract_all(PATTERNS[splitter])
    sizes = lists.list.len().to_numpy().astype(np.int64)
    words = lists.explode().drop_nulls()
    code, hashes = pd.factorize(words.hash().to_numpy())
    first = np.empty(len(hashes), np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    return Words(
        documents=len(texts),
        document=np.repeat(np.arange(len(texts)), sizes),
        code=code.astype(np.int64),
        length=words.str.len_chars().to_numpy().astype(np.int64),
        distinct=words.gather(first),
    )


def ratio(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> Floats:
    """part / whole, 0 where there is nothing."""
    return np.asarray(part, np.float64) / np.maximum(np.asarray(whole, np.float64), 1)
