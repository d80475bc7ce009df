"""The global order: exact shares in every prefix, nothing skipped or repeated, the same on every machine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lablib.data import order

SHARES = [(1.0,), (0.5, 0.5), (0.7, 0.2, 0.1), (0.6, 0.399, 0.001), (1 / 3, 1 / 3, 1 / 3), tuple(np.arange(1, 11) / 55)]


@pytest.mark.parametrize("shares", SHARES)
def test_same_as_sorting_all_due_times(shares: tuple[float, ...]) -> None:
    """The reference sorts the due times of everything at once."""
    count = 3 * order.BLOCK + 100
    everything = sorted(
        ((n + 0.5) / share, d, n) for d, share in enumerate(shares) for n in range(int(count * share) + 3)
    )
    assert [order.place(i, shares) for i in range(count)] == [(d, n) for _, d, n in everything[:count]]


@pytest.mark.parametrize("shares", SHARES)
def test_every_prefix_holds_the_shares(shares: tuple[float, ...]) -> None:
    count = 5000
    domains = np.array([order.place(i, shares)[0] for i in range(count)])
    for domain, share in enumerate(shares):
        drift = np.cumsum(domains == domain) - share * np.arange(1, count + 1)
        assert np.abs(drift).max() <= len(shares), "windows off the share, at any time"


@pytest.mark.parametrize("first", [10**6, 10**9, 10**12])
def test_far_positions_neither_skip_nor_repeat(first: int) -> None:
    shares = (0.7, 0.2, 0.1)
    seen = [order.place(first * order.BLOCK // order.BLOCK + i, shares) for i in range(4 * order.BLOCK)]
    for domain in range(3):
        numbers = [n for d, n in seen if d == domain]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_weighted_draws_would_drift() -> None:
    """What stride scheduling avoids: independent draws miss the share by far more."""
    drawn = np.random.default_rng(0).choice(3, 5000, p=[0.7, 0.2, 0.1])
    assert max(abs((drawn[:n] == 0).sum() - 0.7 * n) for n in range(1, 5001)) > 3


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_shuffle_is_a_permutation_that_every_input_changes(size: int) -> None:
    base = order.shuffled(size, 0, "code", 0)
    assert sorted(base.tolist()) == list(range(size))
    if size > 10:
        others = [order.shuffled(size, s, d, e) for s, d, e in ((1, "code", 0), (0, "cod", 0), (0, "code", 1))]
        assert all((base != other).mean() > 0.9 for other in others)
        assert abs(np.corrcoef(base, np.arange(size))[0, 1]) < 0.1, "no trace of the packing's order"


def test_shuffle_is_uniform() -> None:
    """Where window 0 of 6 lands over many seeds: chi-square with 5 degrees of freedom, 0.1 % point 20.5."""
    places = Counter(int(np.flatnonzero(order.shuffled(6, seed, "d", 0) == 0)[0]) for seed in range(3000))
    assert sum((places[k] - 500) ** 2 / 500 for k in range(6)) < 20.5


def test_shuffle_is_pinned() -> None:
    """The same on every machine and NumPy version; a change makes every resumed run read other data."""
    assert order.shuffled(10, 7, "code", 3).tolist() == [9, 0, 8, 4, 1, 3, 2, 6, 5, 7]
