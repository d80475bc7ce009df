"""Which window comes at which place: pure functions of integers, so that a data position is one number.

Domains are interleaved by stride scheduling (Waldspurger & Weihl 1995): window j of a domain with share w is due at time
(j + 1/2)/w, and windows come in order of their times. Every prefix then holds each domain in its share to within one
window or so, without any random drift. Inside a domain, windows come in an order shuffled anew for each epoch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Places that are worked out together."""
_MIX_1, _MIX_2, _GOLDEN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


def _due(number: int, share: float) -> float:
    return (number + 0.5) / share


def _count(time: float, share: float) -> int:
    """Windows of a domain that are due before or at `time`, by the very comparison that orders them."""
    guess = max(0, int(time * share + 0.5))
    while guess > 0 and _due(guess - 1, share) > time:
        guess -= 1
    while _due(guess, share) <= time:
        guess += 1
    return guess


@lru_cache(maxsize=64)
def block(number: int, shares: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(domain, window's number in the domain) of the places [number·BLOCK, (number + 1)·BLOCK), each (BLOCK,)."""
    first = number * BLOCK
    slack = len(shares) + 2.0
    early = first - slack
    done = [_count(early, share) for share in shares]
    until = [_count(first + BLOCK + slack, share) for share in shares]
    index = np.concatenate([np.arange(*ends, dtype=np.int64) for ends in zip(done, until, strict=True)])
    domain = np.repeat(np.arange(len(shares)), np.subtract(until, done))
    times = (index + 0.5) / np.array(shares)[domain]  # the same operations as in `_due`, bit for bit
    order = np.lexsort((domain, times))[first - sum(done) :][:BLOCK]
    return domain[order], index[order]


def place(position: int, shares: tuple[float, ...]) -> tuple[int, int]:
    """(domain, window's number in the domain) at a global position ≥ 0. `shares` sum to 1, each above 0."""
    domains, numbers = block(position // BLOCK, shares)
    return int(domains[position % BLOCK]), int(numbers[position % BLOCK])


@lru_cache(maxsize=32)
def shuffled(size: int, seed: int, domain: str, epoch: int) -> NDArray[np.int64]:
    """A permutation of [0, size), the same on every machine and NumPy version.

    Numbers are sorted by SplitMix64's finaliser (Steele et al. 2014), which is one-to-one on 64 bits: no ties.
    """
    state = np.array(seed, dtype=np.uint64)
    for part in (epoch, *domain.encode()):
        state = _mix(state ^ np.uint64(part))
    with np.errstate(over="ignore"):
        return np.argsort(_mix(np.arange(size, dtype=np.uint64) + state), kind="stable")


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        value = value + _GOLDEN
        value = (value ^ (value >> np.uint64(30))) * _MIX_1
        value = (value ^ (value >> np.uint64(27))) * _MIX_2
        return np.asarray(value ^ (value >> np.uint64(31)), dtype=np.uint64)
