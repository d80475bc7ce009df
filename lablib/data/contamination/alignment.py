"""Where a passage has an item's words in the item's order, and whether the numbers among them are the same.

What is lost, added or replaced here and there leaves the rest in order, so that an edited copy is found where n-grams are
broken. A number stands where the item has a number: with another value it makes another question of the same template,
while a number that is gone says nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.contamination.grams import DIGITS, LETTERS

EQUAL, IN_PLACE = 10, 9
"""What a word or number that is the same counts in an alignment, and a number in another's place: less, so that
numbers around one that is gone are met again, but only little less, so that chance does not shift other numbers."""
HELD = 2
"""Words in a row with numbers that make them comparable."""
Ints = NDArray[np.int64]


class Words(NamedTuple):
    """Words of an item or a passage (`grams.Tokens`)."""

    hashes: NDArray[np.uint16]
    numbers: NDArray[np.uint8]
    runs: NDArray[np.uint16]

    def cut(self, at: slice) -> Words:
        """Some in a row."""
        return Words(self.hashes[at], self.numbers[at], self.runs[at])


class Aligned(NamedTuple):
    """How much of an item a passage has in order."""

    weight: float
    """Share of the item's words, by weight."""
    words: float
    """Share of the item's words."""
    agreement: float
    """Of the item's numbers in whose place the passage has a number, the share, by weight, that is the same: of those in
    digits or those in letters, whichever is less; 1 where there is none."""
    begin: int
    """First aligned word of the passage."""
    end: int
    """One past the last one."""


def aligned(item: Words, weights: NDArray[np.floating[Any]], passage: Words) -> Aligned:
    """The best alignment of an item with a passage."""
    mine, other = _pairs(item, passage)
    if not len(mine):
        return Aligned(0.0, 0.0, 1.0, 0, 0)
    same = item.hashes[mine] == passage.hashes[other]
    agree = same | (item.runs[mine] == passage.runs[other])
    met = np.zeros(len(item.hashes), bool)
    met[mine[same]] = True
    run = np.cumsum(np.diff(item.numbers > 0, prepend=False))
    met |= np.isin(run, run[mine[agree & ~same]])
    held = _held(mine, other, item)
    kinds = [held & (item.numbers[mine] == kind) for kind in (DIGITS, LETTERS)]
    agreement = min(_share(agree[kind], weights[mine[kind]]) for kind in kinds)
    return Aligned(_share(met, weights), float(met.mean()), agreement, int(other[0]), int(other[-1]) + 1)


def _held(mine: Ints, other: Ints, item: Words) -> NDArray[np.bool_]:
    """Which pairs are in a stretch with `HELD` words: what is around a passage has numbers too. One word in another's place
    does not break a stretch."""
    step = np.diff(mine)
    broken = (step > 2) | (step != np.diff(other))
    stretch = np.append(0, np.cumsum(broken))
    return np.bincount(stretch, item.numbers[mine] == 0)[stretch] >= HELD


def _share(same: NDArray[np.bool_], weights: NDArray[np.floating[Any]]) -> float:
    total = float(weights.sum())
    return float(weights[same].sum()) / total if total > 0 else 1.0


def _pairs(item: Words, passage: Words) -> tuple[Ints, Ints]:
    """Places in the item and in the passage that are aligned, both rising: by dynamic programming over the places that have
    a partner at all."""
    mine = np.flatnonzero(np.isin(item.hashes, passage.hashes) | (item.numbers > 0))
    other = np.flatnonzero(np.isin(passage.hashes, item.hashes) | (passage.numbers > 0))
    gain = np.where(
        item.hashes[mine, None] == passage.hashes[None, other],
        EQUAL,
        IN_PLACE * ((item.numbers[mine, None] > 0) & (passage.numbers[None, other] > 0)),
    )
    best = np.zeros((len(mine) + 1, len(other) + 1), np.int32)
    for row, gains in enumerate(gain):
        np.maximum(best[row, 1:], best[row, :-1] + gains, out=best[row + 1, 1:])
        np.maximum.accumulate(best[row + 1], out=best[row + 1])
    pairs, column = [], len(other)
    for row in range(len(mine), 0, -1):
        column = int(np.searchsorted(best[row, : column + 1], best[row, column]))
        if column and best[row - 1, column] < best[row, column]:
            column -= 1
            pairs.append((mine[row - 1], other[column]))
    found = np.array(pairs[::-1], np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
