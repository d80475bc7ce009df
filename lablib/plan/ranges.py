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

    @staticmethod
    def exactly(value: float) -> Range:
        """A number without uncertainty."""
        return Range._of(value, value, value)

    @staticmethod
    def _of(low: float, mid: float, high: float) -> Range:
        """Bounds that arithmetic has put in order, not checked again."""
        return Range.model_construct(low=low, mid=mid, high=high)

    def times(self, factor: float | Range) -> Range:
        """Product with a positive number or range; bounds multiply, which is wider than independence would give."""
        other = factor if isinstance(factor, Range) else Range.exactly(factor)
        return Range._of(self.low * other.low, self.mid * other.mid, self.high * other.high)

    def joined(self, *others: Range) -> Range:
        """Product with independent ranges, positive or exactly zero: the logarithms' half-widths add in quadrature, as the widths of
        independent errors do, so the bounds stay an 80 % band where multiplying them would make a wider one."""
        spread = (self, *others)
        mid = math.prod(one.mid for one in spread)
        if mid == 0:
            return Range.exactly(0.0)
        below = math.hypot(*(math.log(one.mid / one.low) for one in spread))
        above = math.hypot(*(math.log(one.high / one.mid) for one in spread))
        return Range._of(mid * math.exp(-below), mid, mid * math.exp(above))

    def plus(self, other: float | Range) -> Range:
        """Sum with a number or a range."""
        other = other if isinstance(other, Range) else Range.exactly(other)
        return Range._of(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def inverse(self) -> Range:
        """1 / range, for positive ranges."""
        return Range._of(1 / self.high, 1 / self.mid, 1 / self.low)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.mid:.3g} ({self.low:.3g} to {self.high:.3g})"
