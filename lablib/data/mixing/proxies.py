"""Proxy runs as recipes: a pretraining several times over with mixtures drawn around a base, for `cluster` to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lablib.data.mixing.laws import Array
from lablib.data.mixing.learned import Proxies
from lablib.data.mixing.shares import Shares, constrain
from lablib.runs import Run
from lablib.specs import LabError, Mixture, Pretrain
from lablib.specs.synthetic import Synthetic

STRENGTH = (0.25, 8.0)
"""Range of the Dirichlet's concentration: small ones go far from the base, large ones stay near it."""

LIFT = 1e-3
"""Part of the base that joins a draw which cannot keep its limits."""


def drawn(
    base: Mapping[str, float],
    count: int,
    seed: int = 0,
    strength: tuple[float, float] = STRENGTH,
    floor: float = 1e-3,
) -> Array:
    """Mixtures (count, domains) from Dirichlet(s·base), s drawn log-uniformly from `strength` for each of them.

    Around natural proportions, as RegMix (arXiv 2407.01492) and Olmo 3 do; varying s covers the middle and the corners.
    Shares below `floor` become 0. Raises `LabError` for a base that does not sum to one.
    """
    shares = np.array(list(base.values()), dtype=float)
    if shares.min() <= 0 or abs(shares.sum() - 1) > 1e-6:
        raise LabError(f"base: every share must be above 0 and they must sum to 1, not {shares.sum():.4f}")
    draw = np.random.default_rng(seed)
    power = np.exp(draw.uniform(np.log(strength[0]), np.log(strength[1]), size=count))
    found = np.array([draw.dirichlet(shares * s * len(shares)) for s in power]).reshape(count, len(shares))
    found[found < floor] = 0.0
    return np.asarray(found / found.sum(1, keepdims=True))


def proxies(
    recipe: Pretrain,
    base: Mapping[str, float],
    count: int,
    seed: int = 0,
    available: Mapping[str, float] | None = None,
    strength: tuple[float, float] = STRENGTH,
    written: Synthetic | None = None,
) -> list[Pretrain]:
    """`count` variants of a small pretraining, alike but for the mixture: base itself first, then `drawn` ones.

    Where `available` tokens are given, each draw is brought inside the recipe's epoch limit for its own token count, and
    where models wrote some of them (`written`) inside its caps, so that no proxy is refused. Three to five proxies a domain are usual. Raises `LabError`.
    """
    limit = recipe.mean_mixture.max_epochs
    made = []
    for number, weights in enumerate([dict(base), *_rows(base, count - 1, seed, strength)]):
        if available is not None:
            keep = partial(constrain, tokens=recipe.cut.tokens, available=available, max_epochs=limit, written=written)
            weights = _inside(weights, base, keep)
        mixture = Mixture(weights={name: w for name, w in weights.items() if w > 0}, max_epochs=limit)
        made.append(recipe.replace(mixture=mixture, name=f"{recipe.name[:72]}-mix{number:03}"))
    return made


def _inside(weights: Shares, base: Mapping[str, float], keep: Callable[[Shares], Shares]) -> Shares:
    """`keep`, `constrain` under a run's limits; a draw whose few domains cannot take all tokens is given a little of every one first."""
    try:
        return keep(weights)
    except LabError:
        return keep({name: weight + LIFT * base[name] for name, weight in weights.items()})


def _rows(base: Mapping[str, float], count: int, seed: int, strength: tuple[float, float]) -> list[dict[str, float]]:
    return [dict(zip(base, row.tolist(), strict=True)) for row in drawn(base, max(count, 0), seed, strength)]


def measured(run: Run) -> dict[str, Any]:
    """The ``eval`` row of a pretraining's last step; empty before that, however many steps were measured."""
    rows, recipe = run.rows("eval"), run.recipe
    return rows[-1] if rows and isinstance(recipe, Pretrain) and rows[-1]["step"] == recipe.steps else {}


def collect(runs: Sequence[Run], columns: Mapping[str, str] | None = None) -> Proxies:
    """The last held-out measurements of finished proxy runs; `columns` is target → name in the ``eval`` stream.

    The default target is the overall ``bits_per_byte``. A run without them (failed, or still running) is left out. Raises
    `LabError` where none has them.
    """
    wanted = dict(columns or {"held-out": "bits_per_byte"})
    found = []
    for run in runs:
        row = measured(run)
        mixture = run.recipe.mixture if isinstance(run.recipe, Pretrain) else None
        if all(name in row for name in wanted.values()) and isinstance(mixture, Mixture):
            found.append((mixture.weights, [row[name] for name in wanted.values()]))
    if not found:
        raise LabError(f"none of {len(runs)} runs has {', '.join(wanted.values())} in its eval stream; wait for them to finish")  # fmt: skip
    domains = tuple(dict.fromkeys(name for weights, _ in found for name in weights))
    weights = np.array([[row.get(name, 0.0) for name in domains] for row, _ in found])
    losses = np.array([values for _, values in found], dtype=float)
    return Proxies(domains, weights, {target: losses[:, i] for i, target in enumerate(wanted)})
