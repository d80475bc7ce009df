"""Windows of words and how many documents share each: counts that are folded together, whatever came first."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import Hashes, Ints

PENDING = 1 << 20
"""Occurrences that are gathered before they are folded into the counts, 24 bytes each."""


class Windows(NamedTuple):
    """Runs of words of one document: those of ``begins[i]`` up to ``ends[i]``, and the hash of each."""

    begins: Ints
    ends: Ints
    hashes: Hashes


@dataclass(frozen=True)
class Found:
    """Windows and the documents that hold them."""

    hashes: Hashes
    """Sorted, where they were folded."""
    documents: NDArray[np.int64]
    """How many documents hold each of them."""
    home: Hashes
    """The document whose copy stays where one is kept: the first 64 bits of the least SHA-256."""
    holders: frozenset[int] = frozenset()
    """Documents that may hold one, by the first 64 bits of their SHA-256."""

    @functools.cached_property
    def homes(self) -> frozenset[int]:
        """The documents that are home to any of them."""
        return frozenset(self.home.tolist())

    def __len__(self) -> int:
        return len(self.hashes)


def folded(parts: Iterable[Found]) -> Found:
    """Counts of the same window added, and the least home kept, of parts that come one after the other; without holders.

    Memory: 24 bytes for each distinct window, at most twice that for a moment.
    """
    waiting, size = [Found(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64))], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= max(PENDING, len(waiting[0])):
            waiting, size = [_joined(waiting)], 0
    return _joined(waiting)


def shared(found: Found, least: int) -> Found:
    """Those that at least so many documents hold; holders stay."""
    many = found.documents >= least
    return Found(found.hashes[many], found.documents[many], found.home[many], found.holders)


def _joined(parts: Sequence[Found]) -> Found:
    hashes, documents, home = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "documents", "home")
    )
    if not len(hashes):
        return Found(hashes, documents, home)
    sort = np.argsort(hashes, kind="stable")
    hashes, documents, home = hashes[sort], documents[sort], home[sort]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    return Found(hashes[starts], np.add.reduceat(documents, starts), np.minimum.reduceat(home, starts))
