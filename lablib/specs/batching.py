"""How a run's tokens are cut into optimiser steps, with a batch that may grow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from lablib.specs.base import Spec
from lablib.specs.units import Count


class BatchRamp(Spec):
    """The batch begins small and doubles until it is the recipe's: early gradients agree, so that a large batch would waste
    tokens (the critical batch grows in training, arXiv 1812.06162; Llama 3 doubled 4M to 16M, arXiv 2407.21783 §3.4.1)."""

    start: Count
    """Tokens of the first steps."""
    tokens: Count
    """Tokens that are read before the batch is whole; each smaller size reads an equal share of them."""

    def sizes(self, whole: int, unit: int) -> tuple[int, ...]:
        """Tokens of the steps before they are `whole`, ascending, in multiples of `unit`."""
        doubled = (self.start * 2**power for power in range(whole.bit_length()))
        rounded = (round(size / unit) * unit for size in doubled)
        return tuple(takewhile(lambda size: size < whole, rounded))

    def check(self, whole: int, unit: int) -> None:
        """Raises ValueError where `start` is no smaller batch in multiples of `unit`."""
        sizes = self.sizes(whole, unit)
        if not sizes or abs(sizes[0] / self.start - 1) > 0.1:
            raise ValueError(
                f"batch_ramp.start={self.start} must be less than the batch of {whole} tokens and near a multiple of seq_len × "
                f"micro_batch_size × data-parallel ranks = {unit}"
            )


@dataclass(frozen=True)
class Steps:
    """Optimiser steps in order, as (number of steps, tokens of each)."""

    stages: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, tokens: int, whole: int, sizes: tuple[int, ...] = (), over: int = 0) -> Steps:
        """`tokens` in steps of `whole`, after an equal share of `over` in each of the smaller `sizes`; the last step of a share,
        and of the run, completes it."""
        stages, left = [], tokens
        for size in sizes:
            if left <= 0:
                break
            count = -(-min(left, -(-over // len(sizes))) // size)
            stages.append((count, size))
            left -= count * size
        if left > 0:
            stages.append((-(-left // whole), whole))
        return cls(tuple(stages))

    @property
    def count(self) -> int:
        """All steps."""
        return sum(count for count, _ in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return sum(count * size for count, size in self.stages)

    def size(self, step: int) -> int:
        """Tokens of the 0-based `step`; those after the last are as large as it."""
        for count, size in self.stages:
            if step < count:
                return size
            step -= count
        return self.stages[-1][1]

    def before(self, step: int) -> int:
        """Tokens of the first `step` steps."""
        read = 0
        for count, size in self.stages:
            taken = min(step, count)
            read, step = read + taken * size, step - taken
        return read

    def reached(self, tokens: float) -> float:
        """Steps after which so many tokens are read, the last one in part; the inverse of `before`."""
        steps = 0
        for count, size in self.stages:
            if tokens <= count * size:
                return steps + tokens / size
            steps, tokens = steps + count, tokens - count * size
        return float(steps)
