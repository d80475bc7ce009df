"""Shares of tokens by rule: natural, temperature, UniMax, and the nearest shares that keep limits.

Everything here is a pure function from domain → number to domain → share; shares sum to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import numpy as np

from lablib.data.mixing.limits import Bounds, Limits
from lablib.specs import LabError

Shares = dict[str, float]


def _checked(available: Mapping[str, float]) -> dict[str, float]:
    wrong = [name for name, tokens in available.items() if not (np.isfinite(tokens) and tokens >= 0)]
    if wrong:
        raise LabError(f"available[{wrong[0]!r}]={available[wrong[0]]}: tokens are a finite number, 0 or more")
    if not sum(available.values()):
        raise LabError("available: no domain has a token; give the tokens that there are of each")
    return dict(available)


def natural(available: Mapping[str, float]) -> Shares:
    """Each domain in proportion to the tokens that there are of it. Raises `LabError` where there are none."""
    tokens = _checked(available)
    whole = sum(tokens.values())
    return {name: count / whole for name, count in tokens.items()}


def temperature(available: Mapping[str, float], heat: float) -> Shares:
    """Shares in proportion to p^(1/T), p natural: 1 is natural, more lifts small domains, infinity is uniform.

    As in multilingual training (arXiv 1907.05019). A domain without tokens stays at 0. Raises `LabError` for T ≤ 0.
    """
    if not heat > 0:
        raise LabError(f"temperature={heat}: must be above 0; 1 is natural, larger is flatter")
    shares = natural(available)
    top = max(shares.values())
    raised = {name: (share / top) ** (1 / heat) if share else 0.0 for name, share in shares.items()}
    whole = sum(raised.values())
    return {name: value / whole for name, value in raised.items()}


def unimax_tokens(available: Mapping[str, float], tokens: float, max_epochs: float) -> dict[str, float]:
    """Tokens of each domain by UniMax (arXiv 2304.09151, Algorithm 1): as even as an epoch cap allows.

    From the smallest domain up, each gets an equal part of what is left, or `max_epochs` passes where that is less. They
    sum to `tokens`, or to all that the cap allows where that is less. Raises `LabError` for limits that are not positive.
    """
    if not (tokens > 0 and max_epochs > 0):
        raise LabError(f"tokens={tokens}, max_epochs={max_epochs}: both must be above 0")
    left, given = float(tokens), {}
    order = sorted(_checked(available).items(), key=lambda item: item[1])
    for rank, (name, count) in enumerate(order):
        given[name] = min(left / (len(order) - rank), max_epochs * count)
        left -= given[name]
    return {name: given[name] for name in available}


def unimax(available: Mapping[str, float], tokens: float, max_epochs: float = 4.0) -> Shares:
    """`unimax_tokens` as shares. Where the cap allows fewer than `tokens`, ask `most_tokens` how many there are."""
    return natural(unimax_tokens(available, tokens, max_epochs))


def epochs(weights: Mapping[str, float], tokens: float, available: Mapping[str, float]) -> dict[str, float]:
    """Domain → passes over its tokens in a run of `tokens`; infinite where a weight falls on a domain without tokens."""
    return {
        name: tokens * weight / available[name] if available.get(name) else float("inf")
        for name, weight in weights.items()
        if weight > 0
    }


def most_tokens(weights: Mapping[str, float], available: Mapping[str, float], max_epochs: float) -> float:
    """Tokens at which the first domain reaches `max_epochs`."""
    return max_epochs * min(available.get(name, 0.0) / weight for name, weight in weights.items() if weight > 0)


def constrain(weights: Mapping[str, float], **bounds: Unpack[Bounds]) -> Shares:
    """The shares nearest to `weights` (in Kullback-Leibler divergence) that keep a box, an epoch cap, and caps on synthetic text.

    What a limit takes from one domain goes to the others in proportion. Raises `LabError` where nothing keeps the limits.
    """
    names = tuple(weights)
    limits = Limits.of(names, **bounds)
    wanted = np.array([weights[name] for name in names])
    try:
        limits.within(limits.least, np.where(wanted > 0, limits.most, limits.least))
    except LabError as why:
        raise LabError(f"the domains with a weight cannot take all tokens under their limits; give another domain a weight ({why})") from None  # fmt: skip
    return dict(zip(names, limits.nearest(wanted).tolist(), strict=True))
