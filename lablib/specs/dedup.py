"""`Dedup`: which documents are near-duplicates of which, and which one of them stays."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec

RECALL = 0.99
"""Least share of the pairs at `reach` that the default banding proposes."""
MARGIN = 0.1
"""How far above the threshold that share is promised."""
BUDGET = 128
"""Hash functions that the default banding may use; a document's signature costs time and memory in proportion."""
MOST_HASHES = 2048
"""More would not sharpen anything: the standard error of a Jaccard estimate is .01 here."""


def reach(threshold: float) -> float:
    """The similarity at which the default banding promises `RECALL`: a tenth above the threshold, or half-way to 1."""
    return min(threshold + MARGIN, (1 + threshold) / 2)


def bands_for(rows: int, similarity: float, recall: float = RECALL) -> int:
    """Fewest bands of `rows` hashes that propose a pair of this Jaccard similarity with probability `recall`.

    One band agrees with probability J^r, so 1 - (1 - J^r)^b >= recall needs b = ln(1 - recall) / ln(1 - J^r), rounded
    up (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.2).
    """
    agree = similarity**rows
    return 1 if agree >= 1 else math.ceil(math.log1p(-recall) / math.log1p(-agree))


def default_banding(threshold: float) -> tuple[int, int]:
    """(bands, rows): most rows, hence fewest needless comparisons, whose `bands_for` fit into `BUDGET` hashes."""
    target, rows = reach(threshold), 1
    while (rows + 1) * bands_for(rows + 1, target) <= BUDGET:
        rows += 1
    return bands_for(rows, target), rows


class Dedup(Spec):
    """Near-duplicate removal: banded MinHash proposes pairs, and the exact Jaccard similarity of their shingles decides."""

    threshold: float = Field(default=0.7, ge=0.3, le=1.0)
    """Least Jaccard similarity of two documents' sets of shingles that makes one of them go."""
    ngram: int = Field(default=5, ge=1, le=50)
    """Words of a shingle; a shorter document is one shingle."""
    bands: int | None = Field(default=None, ge=1)
    """None: enough for `RECALL` at `reach`."""
    rows: int | None = Field(default=None, ge=1)
    """Hashes of a band. None: as many as `BUDGET` allows."""
    normaliser: Literal["words"] = "words"
    """``words``: NFKC, casefold, invisible characters out, then runs of letters, digits and marks; a character of a script
    that is written without spaces is a word. Numbers stay as they are: forms that differ by them only stay apart."""
    scope: Literal["all", "domain"] = "all"
    """Whether a document may go because of one in another domain."""
    prefer: tuple[str, ...] = ()
    """Domains whose documents stay before those of later and unnamed ones."""
    keep: Literal["longest", "shortest", "any"] = "longest"
    """Which document stays within equally preferred domains; by SHA-256 where that leaves a tie."""

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError("prefer names a domain twice; name each once, the one whose documents stay first")
        bands, rows = self.banding
        if bands * rows > MOST_HASHES:
            raise ValueError(
                f"bands × rows = {bands} × {rows} = {bands * rows} hashes, more than {MOST_HASHES}; "
                f"take fewer rows, or leave both out: {self._advice()}"
            )
        found = 1 - (1 - self.threshold**rows) ** bands
        if found < 0.05:
            raise ValueError(
                f"bands={bands}, rows={rows} would propose only {100 * found:.2g} % of the pairs at "
                f"threshold={self.threshold:g}; take more bands or fewer rows: {self._advice()}"
            )
        return self

    def _advice(self) -> str:
        bands, rows = default_banding(self.threshold)
        return f"bands={bands}, rows={rows} find {RECALL:.0%} of the pairs at {reach(self.threshold):.2g}"

    @property
    def banding(self) -> tuple[int, int]:
        """(bands, rows) as used. With one of them given, the other follows from the promise at `reach`."""
        target = reach(self.threshold)
        if self.rows is not None:
            return self.bands or bands_for(self.rows, target), self.rows
        if self.bands is None:
            return default_banding(self.threshold)
        rows = 1
        while bands_for(rows + 1, target) <= self.bands and rows < MOST_HASHES:
            rows += 1
        return self.bands, rows


class Repeats(Spec):
    """Text that several documents share is taken out of them. What one document alone repeats stays."""

    unit: Literal["line", "sentence", "span", "passage"] = "line"
    """``line``; ``sentence``; ``span``: three sentences in a row (C4, arXiv 1910.10683 §2.2); ``passage``: any `words`
    words in a row, whatever lines they are in (Lee et al., arXiv 2107.06423, take 50 tokens, Olmo 3 500 bytes)."""
    least: int = Field(default=10, ge=2)
    """Documents that must share it."""
    words: int | None = Field(default=None, ge=1, le=1000)
    """Lines, sentences and spans of fewer are left alone, for ``return None`` is in every program. None: 6, or 50 for
    passages."""
    keep_one: bool = True
    """Whether it stays in one document, that of the least SHA-256, even if that is left very short."""

    @property
    def fewest(self) -> int:
        """`words` as used."""
        return self.words or (50 if self.unit == "passage" else 6)
