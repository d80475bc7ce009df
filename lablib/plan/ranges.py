"""`Range`: a number with the bounds that the lab stands behind, low ≤ mid ≤ high."""

from __future__ import annotations

import math
from typing import Self

from pydantic import model_validator

from lablib.specs import Spec


class Range(Spec):
    """An estimate with an 80 % band: one run in ten should fall below `low`, one in ten above `high`."""

    low: float
    mid: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.mid <= self.high:
            raise ValueError(f"a range rises: low={self.low} ≤ mid={self.mid} ≤ high={self.high}")
        return self

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number without uncertainty."""
        return cls(low=value, mid=value, high=value)

    def times(self, factor: float | Range) -> Range:
        """Product with a positive number or range; bounds multiply, which is wider than independence would give."""
        other = factor if isinstance(factor, Range) else Range.exactly(factor)
        return Range(low=self.low * other.low, mid=self.mid * other.mid, high=self.high * other.high)

    def joined(self, *others: Range) -> Range:
        """Product with independent ranges, positive or exactly zero: the logarithms' half-widths add in quadrature, as the widths of
        independent errors do, so the bounds stay an 80 % band where multiplying them would make a wider one."""
        spread = (self, *others)
        mid = math.prod(one.mid for one in spread)
        if mid == 0:
            return Range.exactly(0.0)
        below = math.hypot(*(math.log(one.mid / one.low) for one in spread))
        above = math.hypot(*(math.log(one.high / one.mid) for one in spread))
        return Range(low=mid * math.exp(-below), mid=mid, high=mid * math.exp(above))

    def plus(self, other: float | Range) -> Range:
        """Sum with a number or a range."""
        other = other if isinstance(other, Range) else Range.exactly(other)
        return Range(low=self.low + other.low, mid=self.mid + other.mid, high=self.high + other.high)

    def inverse(self) -> Range:
        """1 / range, for positive ranges."""
        return Range(low=1 / self.high, mid=1 / self.mid, high=1 / self.low)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.mid:.3g} ({self.low:.3g} to {self.high:.3g})"
