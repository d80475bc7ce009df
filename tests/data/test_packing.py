"""Packing: every transition once, nothing that fits is cut, and the same windows as a slow best fit."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data.packing import Packing, pack, pieces

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
SIZES = st.integers(2, 25)


def packed(lengths: list[int], size: int) -> Packing:
    ends = np.cumsum(lengths)
    return pack((ends - lengths).astype(np.int64), np.array(lengths, dtype=np.int64), size)


def transitions(starts: np.ndarray, lengths: np.ndarray) -> Counter[int]:
    """How often the token at each place of the shard is predicted from the one before it."""
    return Counter(at for s, n in zip(starts.tolist(), lengths.tolist(), strict=True) for at in range(s + 1, s + n))


@settings(max_examples=300, deadline=None)
@given(LENGTHS, SIZES)
def test_every_transition_is_predicted_exactly_once(lengths: list[int], size: int) -> None:
    """Documents of 1, size - 1, size and size + 1 tokens are among the cases; an off-by-one loses or repeats some."""
    made = packed(lengths, size)
    begins = np.cumsum(lengths) - lengths
    wanted = Counter(int(b) + k for b, n in zip(begins, lengths, strict=True) for k in range(1, n))
    assert transitions(made.starts, made.lengths) == wanted
    assert made.targets == sum(lengths) - len(lengths)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, SIZES)
def test_windows_are_as_best_fit_makes_them(lengths: list[int], size: int) -> None:
    """The reference tries every open window for the one with the least room that suffices."""
    made = packed(lengths, size)
    used = np.add.reduceat(made.lengths, made.first[:-1]).tolist() if len(made) else []
    _, cut = pieces(np.zeros(len(lengths), np.int64), np.array(lengths), size)
    rooms: list[int] = []
    for length in sorted(cut.tolist(), reverse=True):
        fitting = [n for n, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda n: rooms[n])] -= length
        else:
            rooms.append(size - length)
    assert sorted(used) == sorted(size - room for room in rooms)
    assert max(used, default=0) <= size


@settings(max_examples=100, deadline=None)
@given(LENGTHS, SIZES)
def test_documents_that_fit_are_whole(lengths: list[int], size: int) -> None:
    starts, cut = pieces(np.cumsum(lengths) - lengths, np.array(lengths), size)
    whole = {(int(b), n) for b, n in zip(np.cumsum(lengths) - lengths, lengths, strict=True) if 1 < n <= size}
    assert whole <= set(zip(starts.tolist(), cut.tolist(), strict=True))


def test_concatenating_would_cut_documents() -> None:
    """What best fit avoids: chunks of a joined stream split documents that would have fitted."""
    lengths = [7, 7, 7, 3, 3, 3]
    joined = {int(e) for e in np.cumsum(lengths)[:-1]}
    assert any(chunk not in joined for chunk in range(10, 30, 10))
    made = packed(lengths, 10)
    assert len(made) == 3 and sorted(made.lengths.tolist()) == sorted(lengths)


def test_nothing_to_predict() -> None:
    assert len(packed([1, 1, 1], 8)) == 0
