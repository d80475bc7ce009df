"""DoReMi's domain weights: group distributionally robust optimisation by excess loss (arXiv 2305.10429, Algorithm 1).

A small proxy trains beside a finished reference model. A domain on which the proxy still loses much more than the reference
gets weight; what comes out is the mean of the weights over training, and it is meant for a larger model's mixture. Pure
NumPy: `lablib.train.doremi` trains with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lablib.data.mixing.shares import Shares
from lablib.specs import LabError

Array = NDArray[np.float64]


@dataclass
class DomainWeights:
    """Weights that follow excess loss, and their mean over the updates."""

    domains: tuple[str, ...]
    rate: float = 1.0
    """η, the step size of the exponentiated gradient; 1 in the paper."""
    smoothing: float = 1e-3
    """c, the share of the uniform distribution mixed in at each update; 1e-3 in the paper."""
    now: Array = field(init=False)
    """(domains,): α of the current step, uniform at first."""
    excess: Array = field(init=False)
    """(domains,): λ, the last mean clipped excess of each domain in nats a token."""
    updates: int = field(default=0, init=False)
    _sum: Array = field(init=False)

    def __post_init__(self) -> None:
        """Raises `LabError` for settings that are out of range."""
        if not self.domains or self.rate <= 0 or not 0 <= self.smoothing < 1:
            raise LabError(f"rate={self.rate}, smoothing={self.smoothing}: rate must be above 0, smoothing in [0, 1), with at least one domain")  # fmt: skip
        count = len(self.domains)
        self.now, self.excess, self._sum = np.full(count, 1 / count), np.zeros(count), np.zeros(count)

    def update(self, excess: Array, domain: NDArray[np.int64]) -> Array:
        """The weights after a step. `excess` (tokens,) is proxy loss less reference loss of each predicted token, `domain`
        (tokens,) its domain's number.

        Each token is clipped at zero on its own, then averaged by domain; a domain without a token in the step keeps its last
        mean, as in the authors' code. Raises `LabError` for an excess that is not finite.
        """
        if not np.isfinite(excess).all():
            raise LabError("an excess loss is not finite: the proxy or the reference has diverged; lower the learning rate")  # fmt: skip
        count = np.bincount(domain, minlength=len(self.domains))
        summed = np.bincount(domain, weights=np.maximum(excess, 0), minlength=len(self.domains))
        seen = count > 0
        self.excess = np.where(seen, summed / np.maximum(count, 1), self.excess)
        log = np.log(self.now) + self.rate * self.excess
        raised = np.exp(log - log.max())
        self.now = (1 - self.smoothing) * raised / raised.sum() + self.smoothing / len(self.domains)
        self._sum += self.now
        self.updates += 1
        return self.now

    def state(self) -> dict[str, Any]:
        """All that changes, as JSON; `restore` takes it back, bit for bit."""
        arrays = {"now": self.now, "excess": self.excess, "sum": self._sum}
        return {"updates": self.updates, **{name: array.tolist() for name, array in arrays.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of the same domains."""
        self.updates = state["updates"]
        self.now, self.excess, self._sum = (np.array(state[name]) for name in ("now", "excess", "sum"))

    @property
    def mean(self) -> Shares:
        """Domain → mean weight over all updates: DoReMi's answer. Uniform before the first."""
        mean = self._sum / self.updates if self.updates else self.now
        return dict(zip(self.domains, (mean / mean.sum()).tolist(), strict=True))
