"""Whether a step's loss or gradient norm is out of the ordinary, from the steps before it."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from lablib.specs import Stability

HISTORY = 32
"""Steps before which only what is not finite surprises."""
RECENT = 16
"""Steps whose median is the present level."""
LEAST_RISE = 0.05
"""Share of the level that a loss must rise by, however quiet the curve."""
LEAST_FACTOR = 10.0
"""Times its level that a gradient norm must reach: norms jump two- or threefold in runs that are well."""


@dataclass(frozen=True)
class Bounds:
    """Most loss and gradient norm that are ordinary; infinite while too little is known."""

    loss: float = math.inf
    grad_norm: float = math.inf


class Detector:
    """Rolling robust statistics of losses and of gradient norms' logarithms."""

    def __init__(self, settings: Stability) -> None:
        """Nothing is known at first."""
        self.settings = settings
        self.losses: deque[float] = deque(maxlen=settings.window)
        self.log_norms: deque[float] = deque(maxlen=settings.window)

    def bounds(self) -> Bounds:
        """What the next step is held against."""
        if len(self.losses) < min(HISTORY, self.settings.window):
            return Bounds()
        level, spread = level_and_spread(list(self.losses))
        norm, ratio = level_and_spread(list(self.log_norms))
        rise = max(self.settings.deviations * spread, LEAST_RISE * abs(level))
        growth = max(self.settings.deviations * ratio, math.log(LEAST_FACTOR))
        return Bounds(level + rise, math.exp(min(norm + growth, math.log(sys.float_info.max))))

    def surprise(self, loss: float, grad_norm: float) -> str:
        """What is out of the ordinary: "not finite", "loss", "gradient norm" or nothing ("")."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return "not finite"
        bounds = self.bounds()
        return "loss" if loss > bounds.loss else "gradient norm" if grad_norm > bounds.grad_norm else ""

    def accept(self, loss: float, grad_norm: float) -> None:
        """Count a step as ordinary."""
        self.losses.append(loss)
        self.log_norms.append(math.log(max(grad_norm, sys.float_info.min)))

    def recall(self, losses: Iterable[float], log_norms: Iterable[float]) -> None:
        """Know these steps and no others."""
        self.losses, self.log_norms = (deque(values, maxlen=self.settings.window) for values in (losses, log_norms))


def level_and_spread(curve: Sequence[float]) -> tuple[float, float]:
    """Level of a curve at its end and standard deviation of its noise, neither moved by a trend or by outliers.

    The level is the lower of the medians of the last `RECENT` and of all values: a falling curve is judged by where it is, a
    slowly rising one by where it was. The spread is that of the differences of neighbours over √2, as 1.4826·MAD.
    """
    changes = [after - before for before, after in pairwise(curve)]
    middle = median(changes)
    spread = 1.4826 * median(abs(change - middle) for change in changes) / math.sqrt(2)
    return min(median(curve[-RECENT:]), median(curve)), spread
