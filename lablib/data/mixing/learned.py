"""A mixture learned from proxies: laws for what one cares about, their held-out rank correlation, and the best mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from lablib.data.mixing.laws import Array, ExpLaw, Fitter, fit_exponential, fitters
from lablib.data.mixing.limits import EPOCHS, Bounds, Limits
from lablib.data.mixing.shares import Shares
from lablib.specs import LabError, Mixture, Spec

FLOOR = 1e-6
"""A smaller share is none."""


@dataclass(frozen=True)
class Proxies:
    """What proxy runs measured."""

    domains: tuple[str, ...]
    weights: Array
    """(runs, domains), shares of tokens."""
    losses: dict[str, Array]
    """Target (a held-out domain or a task) → (runs,); lower is better."""

    def __len__(self) -> int:
        """Runs."""
        return len(self.weights)

    def take(self, rows: NDArray[np.int64]) -> Proxies:
        """Some of the runs, by index (k,)."""
        return Proxies(self.domains, self.weights[rows], {name: loss[rows] for name, loss in self.losses.items()})

    def split(self, share: float = 0.25, seed: int = 0) -> tuple[Proxies, Proxies]:
        """(To fit on, held out): drawn once from `seed`, so that the hold-out is never chosen by its losses."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = max(1, round(share * len(self)))
        return self.take(order[held:]), self.take(order[:held])


class MixingLaw(Spec):
    """One exponential law for each target, and how much each target counts."""

    domains: tuple[str, ...]
    laws: dict[str, ExpLaw]
    importance: dict[str, float]
    runs: int
    """Proxy runs that it was fitted on."""
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()
    """Least and greatest share of each domain in those runs: beyond them the law is extrapolated."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if set(self.importance) != set(self.laws):
            raise ValueError(f"importance names {sorted(self.importance)}, the laws are for {sorted(self.laws)}")
        if any(len(law.t) != len(self.domains) for law in self.laws.values()):
            raise ValueError(f"every law takes {len(self.domains)} shares, one a domain")
        return self

    def array(self, weights: Mapping[str, float]) -> Array:
        """Shares in the law's order. Raises `LabError` for a domain that it does not know."""
        if unknown := [name for name, w in weights.items() if w > 0 and name not in self.domains]:
            raise LabError(f"the law knows no {', '.join(unknown)}; it was fitted on {', '.join(self.domains)}")
        return np.array([weights.get(name, 0.0) for name in self.domains])

    def predict(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Target → loss of one mixture. Raises `LabError` for a domain that the law does not know."""
        at = self.array(weights)
        return {name: float(law.predict(at)) for name, law in self.laws.items()}

    def objective(self, weights: Array) -> Array:
        """The importance-weighted mean loss (…,) of mixtures (…, domains)."""
        whole = sum(self.importance.values())
        return np.asarray(sum(self.importance[n] / whole * law.predict(weights) for n, law in self.laws.items()))

    def slope(self, weights: Array) -> Array:
        """Its gradient (domains,) at one mixture."""
        whole = sum(self.importance.values())
        return np.asarray(sum(self.importance[n] / whole * law.gradient(weights) for n, law in self.laws.items()))

    def beyond(self, weights: Array, slack: float = 0.02) -> tuple[str, ...]:
        """Domains whose share lies outside what the proxies tried."""
        outside = (weights < np.array(self.lowest) - slack) | (weights > np.array(self.highest) + slack)
        return tuple(name for name, out in zip(self.domains, outside, strict=True) if out)


def learn(proxies: Proxies, importance: Mapping[str, float] | None = None, root: bool = False,
          start: MixingLaw | None = None) -> MixingLaw:  # fmt: skip
    """The law of every target on all runs; `importance` (default: all alike) decides which targets count.

    Raises `LabError` for an unknown target or runs that cannot be fitted.
    """
    wanted = dict(importance or dict.fromkeys(proxies.losses, 1.0))
    if unknown := sorted(set(wanted) - set(proxies.losses)):
        raise LabError(f"importance names {', '.join(unknown)}; the proxies measured {', '.join(proxies.losses)}")
    laws = {
        name: fit_exponential(proxies.weights, proxies.losses[name], root, start.laws[name] if start else None)
        for name in wanted
    }
    ends = {"lowest": tuple(proxies.weights.min(0).tolist()), "highest": tuple(proxies.weights.max(0).tolist())}
    return MixingLaw(domains=proxies.domains, laws=laws, importance=wanted, runs=len(proxies), **ends)


@dataclass(frozen=True)
class Score:
    """How a fit does on runs that it has not seen."""

    fitter: str
    target: str
    spearman: float
    """Rank correlation; what matters when mixtures are chosen."""
    rmse: float
    constant_rmse: float
    """The same for a fit that knows nothing: the mean of the runs it was fitted on."""
    fitted: int
    held_out: int


def compare(proxies: Proxies, share: float = 0.25, seed: int = 0, ways: Mapping[str, Fitter] | None = None) -> list[Score]:  # fmt: skip
    """Every way to fit, on runs held out from it altogether: not for fitting, stopping or choosing hyperparameters."""
    from scipy.stats import spearmanr

    known, held = proxies.split(share, seed)
    scores = []
    for name, fitter in (ways or fitters()).items():
        for target, losses in known.losses.items():
            truth = held.losses[target]
            told = fitter(known.weights, losses).predict(held.weights)
            rank = float(spearmanr(told, truth).statistic) if len(truth) > 2 and np.ptp(told) > 0 else float("nan")
            errors = [float(np.sqrt(np.mean((guess - truth) ** 2))) for guess in (told, losses.mean())]
            scores.append(Score(name, target, rank, errors[0], errors[1], len(known), len(held)))
    return scores


def refits(proxies: Proxies, law: MixingLaw, count: int = 50, seed: int = 0) -> list[MixingLaw]:
    """Bootstrap: the law again on `count` draws of as many runs with replacement."""
    draw = np.random.default_rng(seed)
    root = next(iter(law.laws.values())).root
    return [
        learn(proxies.take(draw.integers(0, len(proxies), len(proxies))), law.importance, root, law)
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Optimum:
    """The best mixture by a law, and how sure that is."""

    mixture: Mixture
    predicted: dict[str, float]
    """Target → loss."""
    gain: float
    """Predicted mean loss of the baseline less that of the optimum."""
    gain_range: tuple[float, float] | None
    """Its 10th and 90th percentile over refits."""
    spread: dict[str, tuple[float, float]]
    """Domain → 10th and 90th percentile of its share over the refits' own optima; empty without refits."""
    beyond: tuple[str, ...]
    """With `extrapolate`, domains whose share no proxy came near: run a proxy there before believing it."""


def optimise(
    law: MixingLaw,
    baseline: Mapping[str, float],
    again: list[MixingLaw] | None = None,
    extrapolate: bool = False,
    **bounds: Unpack[Bounds],
) -> Optimum:
    """The mixture with the least predicted loss under `bounds` (SLSQP from several starts).

    `baseline` (natural or uniform shares) is one start and what the gain is against; `again` are `refits`. Each share stays
    between the least and the greatest that a proxy had, unless `extrapolate`: a law with a positive exponent bends any
    way outside its runs. Raises `LabError` where no mixture keeps the limits.
    """
    limits = Limits.of(law.domains, **bounds)
    if law.highest and not extrapolate:
        limits = _tried(law, limits)
    start = law.array(baseline)
    best = _least(law, start, limits)
    gains: list[float] = []
    shares: list[Array] = []
    for other in again or []:
        gains.append(float(other.objective(start) - other.objective(best)))
        shares.append(_least(other, best, limits, starts=1))
    spread = np.percentile(shares, (10, 90), axis=0).T.tolist() if shares else []
    return Optimum(
        Mixture(weights=_named(law, best), max_epochs=bounds.get("max_epochs", EPOCHS)),
        law.predict(_named(law, best)),
        float(law.objective(start) - law.objective(best)),
        (float(np.percentile(gains, 10)), float(np.percentile(gains, 90))) if gains else None,
        {name: (float(a), float(b)) for name, (a, b) in zip(law.domains, spread, strict=False)},
        law.beyond(best) if law.highest else (),
    )


def _tried(law: MixingLaw, limits: Limits) -> Limits:
    """The limits cut to the shares that proxies had."""
    try:
        return limits.within(np.array(law.lowest), np.array(law.highest))
    except LabError as why:
        raise LabError(f"under these limits no mixture lies among what the {law.runs} proxies tried; run proxies there, or set extrapolate=True ({why})") from None  # fmt: skip


def opinions(proxies: Proxies, law: MixingLaw, mixture: Mapping[str, float], baseline: Mapping[str, float],
             ways: Mapping[str, Fitter] | None = None) -> dict[str, float]:  # fmt: skip
    """Every way to fit → the gain of `mixture` on `baseline` that it predicts, on all runs, by the law's importance.

    Where they disagree on the sign, run a proxy of the mixture itself. Raises `LabError` for an unknown domain.
    """
    places = np.stack([law.array(baseline), law.array(mixture)])
    whole, told = sum(law.importance.values()), {}
    for name, fitter in (ways or fitters()).items():
        fits = {target: fitter(proxies.weights, proxies.losses[target]).predict(places) for target in law.importance}
        told[name] = float(sum(part * (fits[t][0] - fits[t][1]) for t, part in law.importance.items()) / whole)
    return told


def _named(law: MixingLaw, weights: Array) -> Shares:
    kept = {name: float(weight) for name, weight in zip(law.domains, weights, strict=True) if weight > FLOOR}
    whole = sum(kept.values())
    return {name: weight / whole for name, weight in kept.items()}


def _least(law: MixingLaw, start: Array, limits: Limits, starts: int = 8) -> Array:
    """The best end of SLSQP from `start` and from random mixtures, put exactly into the limits."""
    from scipy.optimize import minimize

    draw = np.random.default_rng(0)
    begins = [start, *draw.dirichlet(np.ones(len(start)), size=starts - 1)]
    kept = [{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}]
    if limits.cap < 1:
        kept.append({"type": "ineq", "fun": lambda w: limits.cap - w @ limits.synthetic, "jac": lambda w: -limits.synthetic})  # fmt: skip
    scale = max(float(np.abs(law.slope(start)).max()), 1e-12)
    ends = []
    for begin in begins:
        found = minimize(
            lambda w: float(law.objective(w)) / scale,
            limits.nearest(np.maximum(begin, 1e-9)),
            jac=lambda w: law.slope(w) / scale,
            bounds=list(zip(limits.least, limits.most, strict=True)),
            constraints=kept,
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-10},
        )
        ends.append(limits.nearest(np.where(found.x > FLOOR, found.x, 0.0) + 1e-12))
    return min(ends, key=lambda w: float(law.objective(w)))
