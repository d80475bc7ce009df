"""One arithmetic for a single plan and for a grid of them: numbers go through Python, arrays through NumPy.

The planner's formulas are written once. With plain numbers these helpers stay plain (a NumPy call on a scalar costs ten
times a Python one); where any argument is an array, they broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Number = Any
"""A float, an int or an array of them; formulas do not care which."""


def most(*values: Number) -> Number:
    """The largest, element by element."""
    for value in values:  # a loop: this is asked dozens of times a plan, and a generator costs twice as much
        if isinstance(value, np.ndarray):
            return _fold(np.maximum, values)
    return max(values)


def least(*values: Number) -> Number:
    """The smallest, element by element."""
    for value in values:
        if isinstance(value, np.ndarray):
            return _fold(np.minimum, values)
    return min(values)


def _fold(join: Any, values: tuple[Number, ...]) -> Number:
    made = values[0]
    for value in values[1:]:
        made = join(made, value)
    return made


def choose(condition: Number, yes: Number, no: Number) -> Number:
    """`yes` where the condition holds, else `no`. Both are evaluated, so neither may raise."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)
    return yes if condition else no


def ceil(value: Number) -> Number:
    """Rounded up to a whole number."""
    return np.ceil(value) if isinstance(value, np.ndarray) else math.ceil(value)


def rounded(value: Number) -> Number:
    """The nearest whole number, halves to even."""
    return np.rint(value) if isinstance(value, np.ndarray) else round(value)


def power(base: Number, exponent: Number) -> Number:
    """base ** exponent, element by element."""
    return base**exponent


def log2(value: Number) -> Number:
    """Logarithm to base 2."""
    return np.log2(value) if isinstance(value, np.ndarray) else math.log2(value)


def exp(value: Number) -> Number:
    """e to the power of `value`."""
    return np.exp(value) if isinstance(value, np.ndarray) else math.exp(value)


@dataclass(frozen=True)
class Layouts:
    """Many layouts at once: `Parallelism`'s fields as equally long arrays (or numbers shared by all)."""

    dp_replicate: Number = 1
    dp_shard: Number = 1
    tp: Number = 1
    pp: Number = 1
    cp: Number = 1
    ep: Number = 1
    micro_batch_size: Number = 1
    virtual_stages: Number = 1
    zero: int = 3
    sequence_parallel: bool = False
    pp_schedule: str = "1f1b"

    @property
    def dp(self) -> Number:
        """Data-parallel ranks, each with its own sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def gpus(self) -> Number:
        """Accelerators, one process each."""
        return self.dp * self.tp * self.pp * self.cp
