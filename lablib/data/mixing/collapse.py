"""A guard against model collapse: caps on synthetic text and on its generation, and alarms when diversity falls.

Training generation after generation on one's own output loses the tails of the distribution (arXiv 2305.17493); keeping
real data in the mixture bounds the harm (arXiv 2404.01413). So each document carries its synthetic share and its depth
(0: people wrote it; n + 1: made from text of depth n), both are capped, and each generation's diversity is held against
the real text's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lablib.specs import Caps as Caps
from lablib.specs import LabError


@dataclass(frozen=True)
class Origin:
    """Where the documents of a corpus come from; each array is (documents,)."""

    tokens: NDArray[np.int64]
    share: NDArray[np.float64]
    """Synthetic share of each, 0 to 1."""
    depth: NDArray[np.int64]
    """Generation of each, 0 for human text."""

    def __post_init__(self) -> None:
        """Raises `LabError` for arrays that do not go together, and for a depth without a synthetic share or the reverse."""
        if not len(self.tokens) == len(self.share) == len(self.depth):
            raise LabError("tokens, share and depth hold one number a document each")
        if not ((self.share >= 0) & (self.share <= 1)).all() or (self.depth < 0).any():
            raise LabError("a synthetic share is from 0 to 1 and a depth is not negative")
        if ((self.share > 0) != (self.depth > 0)).any():
            raise LabError("a document has a synthetic share exactly where its depth is above 0; mend its provenance")

    @property
    def synthetic(self) -> float:
        """Synthetic share of all tokens."""
        return float((self.tokens * self.share).sum() / max(self.tokens.sum(), 1))


def made_from(shares: Sequence[float], depths: Sequence[int], rewritten: bool = True) -> tuple[float, int]:
    """(Synthetic share, depth) of a document made from others.

    Text that a model wrote is wholly synthetic, a generation deeper than its deepest source, whatever the source's share;
    text that only joins others (not `rewritten`) takes their mean and the deepest. Without a source (a model wrote from a
    bare prompt) the depth is 1.
    """
    deepest = max(depths, default=0)
    if rewritten:
        return 1.0, deepest + 1
    if not shares:
        raise LabError("text joined from nothing has no provenance; give its sources")
    return float(np.mean(shares)), deepest


@dataclass(frozen=True)
class Verdict:
    """What the caps leave."""

    keep: NDArray[np.bool_]
    """(documents,)."""
    gone: dict[str, NDArray[np.bool_]]
    """Cap → (documents,), those that it drops; one that breaks several counts under the first."""
    synthetic: float
    """Synthetic share of the tokens that stay."""

    @property
    def dropped(self) -> dict[str, int]:
        """Documents by the cap that drops them."""
        return {cap: int(which.sum()) for cap, which in self.gone.items()}


def guard(origin: Origin, caps: Caps, rank: NDArray[np.float64] | None = None) -> Verdict:
    """Which documents stay under the caps.

    The caps on depth and document drop what breaks them; the cap on the corpus then drops documents with synthetic text in
    descending order of `rank` (documents,), by default their place, until it holds. Give a hash as rank and the choice does
    not depend on the order of reading. Human documents are never dropped.
    """
    deep = origin.depth > caps.depth
    heavy = ~deep & (origin.share > caps.document + 1e-12)
    keep = ~deep & ~heavy
    order = np.argsort(np.arange(len(keep)) if rank is None else rank, kind="stable")
    order = order[keep[order] & (origin.share[order] > 0)]
    human = origin.tokens[keep & (origin.share == 0)].sum()
    made = np.cumsum(origin.tokens[order] * origin.share[order])
    fits = made <= caps.corpus * (human + np.cumsum(origin.tokens[order])) * (1 + 1e-12)
    last = np.flatnonzero(fits)
    surplus = order[last[-1] + 1 if len(last) else 0 :]
    keep[surplus] = False
    gone = {"depth": deep, "document": heavy, "corpus": ~(keep | deep | heavy)}
    left = Origin(origin.tokens[keep], origin.share[keep], origin.depth[keep])
    return Verdict(keep, gone, left.synthetic)


@dataclass(frozen=True)
class Diversity:
    """How varied a sample of text is; only samples of equal size compare."""

    distinct: dict[int, float]
    """n → distinct n-grams over n-grams (arXiv 1510.03055); falls with the sample's size."""
    compression: float
    """Bytes over zlib's bytes: rises as text repeats itself (arXiv 2403.00553)."""
    words: int
    """Size of the sample."""

    @property
    def values(self) -> dict[str, float]:
        """Measure → its value: ``distinct-n``, and ``compression ratio``, which alone rises as diversity falls."""
        return {**{f"distinct-{n}": value for n, value in self.distinct.items()}, "compression ratio": self.compression}

    def left_of(self, before: Diversity) -> dict[str, float]:
        """Measure → what is left of the diversity of `before`, 1 where it is the same. Raises `LabError` for samples of unequal
        size."""
        if before.words != self.words:
            raise LabError(f"samples of {before.words} and {self.words} words do not compare; measure both on the same number")  # fmt: skip
        left = {f"distinct-{n}": self.distinct.get(n, 0.0) / value for n, value in before.distinct.items() if value}
        return {**left, "compression ratio": before.compression / self.compression}


def diversity(texts: Iterable[str], words: int, orders: Sequence[int] = (1, 2, 3)) -> Diversity:
    """Measured on the first `words` words (split at blanks), n-grams within documents.

    Raises `LabError` where there are fewer: another size would be another scale.
    """
    documents, left = [], words
    for text in texts:
        documents.append(text.split()[:left])
        left -= len(documents[-1])
        if not left:
            break
    if left:
        raise LabError(f"words={words}: the texts hold only {words - left}; compare smaller samples")
    raw = "\n".join(" ".join(document) for document in documents).encode()
    distinct = {order: _distinct(documents, order) for order in orders}
    return Diversity(distinct, len(raw) / len(zlib.compress(raw, 9)), words)


def _distinct(documents: Sequence[Sequence[str]], order: int) -> float:
    grams = [tuple(words[i : i + order]) for words in documents for i in range(len(words) - order + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Alarm:
    """One measure that has drifted too far."""

    measure: str
    before: float
    after: float
    change: float
    """Relative loss of diversity, above 0."""


def drift(before: Diversity, after: Diversity, tolerance: float = 0.1) -> list[Alarm]:
    """The measures by which `after` is less diverse than `before` by more than `tolerance`, relatively.

    Hold every generation against the real text, not against the one before: slow collapse stays under any tolerance from
    one generation to the next. Raises `LabError` for samples of unequal size.
    """
    old, new = before.values, after.values
    left = after.left_of(before)
    return [Alarm(name, old[name], new.get(name, 0.0), 1 - kept) for name, kept in left.items() if 1 - kept > tolerance]
