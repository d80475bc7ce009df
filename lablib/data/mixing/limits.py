"""`Limits`: what shares of tokens must keep, and the nearest shares that do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from lablib.specs import LabError
from lablib.specs.synthetic import Caps, Synthetic

Array = NDArray[np.float64]
EPOCHS = 4.0
"""Passes after which a repeated token is worth clearly less (arXiv 2305.16264)."""
STEPS = 60
"""Halvings of the cap's multiplier: past a double's digits."""


class Bounds(TypedDict, total=False):
    """What a mixture must keep; what is left out binds nothing."""

    low: Mapping[str, float] | None
    """Least share of a domain."""
    high: Mapping[str, float] | None
    tokens: float | None
    """Of the run, of which a domain's share is at most `max_epochs` passes over what is `available` of it."""
    available: Mapping[str, float] | None
    """Domain → unique tokens."""
    max_epochs: float
    """`EPOCHS` where it is left out."""
    written: Synthetic | None
    """What models wrote, with caps on depth and synthetic share (the usual ones where it has none)."""


@dataclass(frozen=True)
class Limits:
    """A box around shares, and a cap on how much of the whole models wrote; arrays are (domains,)."""

    names: tuple[str, ...]
    least: Array
    most: Array
    synthetic: Array
    """Synthetic share of each domain's tokens."""
    cap: float = 1.0
    """Greatest synthetic share of the whole."""

    @classmethod
    def of(cls, names: tuple[str, ...], **bounds: Unpack[Bounds]) -> Self:
        """Raises `LabError` where no shares keep the bounds, with what they come to."""
        low, high, written = bounds.get("low"), bounds.get("high"), bounds.get("written")
        tokens, available = bounds.get("tokens"), bounds.get("available")
        models, caps = (written.domains, written.caps or Caps()) if written else ({}, Caps(corpus=1))
        least = np.array([(low or {}).get(name, 0.0) for name in names])
        most = np.array([(high or {}).get(name, 1.0) for name in names])
        if tokens is not None and available is not None:
            most = np.minimum(
                most, [bounds.get("max_epochs", EPOCHS) * available.get(name, 0.0) / tokens for name in names]
            )
        most = np.where([name in models and models[name].generation > caps.depth for name in names], 0.0, most)
        parts = np.array([models[name].share if name in models else 0.0 for name in names])
        return cls(names, least, most, parts, caps.corpus)._checked()

    def within(self, least: Array, most: Array) -> Self:
        """These, and a narrower box. Raises `LabError` where no shares keep them."""
        most = np.minimum(self.most, np.maximum(most, self.least))
        return replace(self, least=np.maximum(self.least, np.minimum(least, most)), most=most)._checked()

    def nearest(self, wanted: Array) -> Array:
        """The shares nearest to `wanted` in Kullback-Leibler divergence: clip(λ·wanted·exp(−μ·synthetic), least, most), with
        the λ at which they sum to one and the least μ ≥ 0 under the cap (its dual)."""
        found = _filled(wanted, self.least, self.most)
        if self._keeps(found):
            return found
        extra = self.synthetic - self.synthetic.min()
        low, high = 0.0, 1.0
        while not self._keeps(found := self._tilted(wanted, high * extra)) and high < 1e4:
            low, high = high, 2 * high
        for _ in range(STEPS):
            middle = (low + high) / 2
            tried = self._tilted(wanted, middle * extra)
            low, high, found = (low, middle, tried) if self._keeps(tried) else (middle, high, found)
        return found

    def _tilted(self, wanted: Array, by: Array) -> Array:
        return _filled(wanted * np.exp(-np.minimum(by, 500.0)), self.least, self.most)

    def _keeps(self, shares: Array) -> bool:
        return float(shares @ self.synthetic) <= self.cap * (1 + 1e-12)

    def _checked(self) -> Self:
        for name, bottom, top in zip(self.names, self.least, self.most, strict=True):
            if not 0 <= bottom <= top + 1e-12:
                raise LabError(f"{name}: a share of at least {bottom:.3g} and at most {top:.3g} cannot be; lower `low`, raise `high` or max_epochs, or train on fewer tokens")  # fmt: skip
        least, most = self.least.sum(), self.most.sum()
        if most < 1 - 1e-9 or least > 1 + 1e-9:
            raise LabError(f"the limits allow shares that sum to between {least:.3g} and {most:.3g}, never 1; {'train on fewer tokens, add data or raise max_epochs' if most < 1 else 'lower `low`'}")  # fmt: skip
        plain = self._plainest()
        if plain > self.cap * (1 + 1e-9):
            raise LabError(f"synthetic.corpus={self.cap:g}: under the other limits {plain:.1%} of the tokens at least are synthetic; train on fewer tokens, add human text, raise max_epochs, or raise the cap where the data is prepared")  # fmt: skip
        return replace(self, least=np.minimum(self.least, self.most))

    def _plainest(self) -> float:
        """The least synthetic share that the box allows: what is least synthetic is filled first."""
        shares = np.minimum(self.least, self.most)
        for index in np.argsort(self.synthetic, kind="stable"):
            shares[index] += min(self.most[index] - shares[index], max(0.0, 1 - shares.sum()))
        return float(shares @ self.synthetic)


def _filled(wanted: Array, least: Array, most: Array) -> Array:
    """clip(λ·wanted, least, most) with the λ at which they sum to one."""
    low, high = 0.0, 1.0
    while np.clip(high * wanted, least, most).sum() < 1 - 1e-12 and high < 1e300:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if np.clip(middle * wanted, least, most).sum() < 1 else (low, middle)
    return _whole(np.clip(high * wanted, least, most), least, most)


def _whole(shares: Array, least: Array, most: Array) -> Array:
    """The last digits of the sum, put where there is room."""
    for index in np.argsort(-(most - shares), kind="stable"):
        shares[index] = np.clip(shares[index] + 1 - shares.sum(), least[index], most[index])
    return shares
