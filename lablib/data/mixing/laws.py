"""Loss as a function of the mixture, fitted to proxy runs: the exponential mixing law, a Gaussian process, boosted trees.

The default is the exponential law of Data Mixing Laws (arXiv 2403.16952): L(r) = c + k·exp(Σ t_j·r_j). On RegMix's public
runs (github.com/sail-sg/regmix) 64 proxies of 1M parameters and this law rank 1B models at Spearman .98, boosted trees at
.40. Shares sum to one, so k and a constant in t say the same; we write k = exp(b).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lablib.specs import LabError, Spec

Array = NDArray[np.float64]
FEWEST = 4
"""Runs that a law takes."""
RIDGE = 1e-4
"""Weight of |t|² beside the squared residuals in units of the losses' deviation: decides only what the runs leave open."""
_FLOORS = (0.02, 0.1, 0.3, 1.0, 3.0)
"""Where the search for c begins: below the least loss, in deviations."""


class Predictor(Protocol):
    """What a fit gives."""

    def predict(self, weights: Array) -> Array:
        """Losses (…,) of mixtures (…, domains)."""


Fitter = Callable[[Array, Array], Predictor]
"""(weights (runs, domains), losses (runs,)) → predictor."""


def check_runs(weights: Array, losses: Array) -> None:
    """Raises `LabError` where runs cannot be fitted: too few, not finite, or not shares."""
    if weights.ndim != 2 or losses.shape != weights.shape[:1]:
        raise LabError(f"weights {weights.shape} and losses {losses.shape}: give (runs, domains) and (runs,)")
    if len(losses) < FEWEST:
        raise LabError(f"{len(losses)} runs are too few to fit a law; run at least {FEWEST}, better 3 to 5 a domain")
    if not (np.isfinite(weights).all() and np.isfinite(losses).all()):
        raise LabError("a run has a weight or loss that is not finite; leave failed proxies out")
    if np.abs(weights.sum(1) - 1).max() > 1e-3 or weights.min() < 0:
        raise LabError("weights must not be negative and sum to 1 in each run")


class ExpLaw(Spec):
    """L(r) = c + exp(b + Σ t_j·x_j), x = r, or its square root where `root`."""

    c: float
    """The loss that no mixture goes below."""
    b: float
    t: tuple[float, ...]
    """One a domain; the most negative is the domain that helps most."""
    root: bool = False

    def predict(self, weights: Array) -> Array:
        """Losses (…,) of mixtures (…, domains)."""
        return np.asarray(self.c + self._rise(weights))

    def gradient(self, weights: Array) -> Array:
        """dL/dr (domains,) at one mixture (domains,)."""
        slopes = np.array(self.t) * self._rise(weights)
        return slopes * 0.5 / np.sqrt(np.maximum(weights, 1e-9)) if self.root else slopes

    def _rise(self, weights: Array) -> Array:
        features = np.sqrt(np.maximum(weights, 0)) if self.root else weights
        return np.asarray(np.exp(np.minimum(self.b + features @ np.array(self.t), 50)))


def fit_exponential(weights: Array, losses: Array, root: bool = False, start: ExpLaw | None = None) -> ExpLaw:
    """Least squares from several floors c (or from `start` alone, quicker: for bootstraps). Raises `LabError`."""
    check_runs(weights, losses)
    features = np.sqrt(weights) if root else weights
    base, scale = float(losses.min()), float(losses.std()) or 1.0
    scaled = (losses - base) / scale
    if start is None:
        begins = [_linearised(features, scaled, -below) for below in _FLOORS]
    else:
        begins = [np.array([(start.c - base) / scale, start.b - np.log(scale), *start.t])]
    found = min((_refined(features, scaled, begin) for begin in begins), key=lambda result: result.cost)
    c, b, *t = found.x
    return ExpLaw(c=base + scale * c, b=b + np.log(scale), t=tuple(t), root=root)


def _linearised(features: Array, scaled: Array, floor: float) -> Array:
    """The law for a known floor: log(y - c) is linear; weighted by (y - c)², as errors of y are."""
    height = scaled - floor
    design = np.column_stack([np.ones(len(scaled)), features])
    penalty = np.diag([0.0, *[RIDGE] * features.shape[1]]) + 1e-9 * np.eye(design.shape[1])
    left = design.T @ (design * (height**2)[:, None]) + penalty
    return np.array([floor, *np.linalg.solve(left, design.T @ (np.log(height) * height**2))])


def _refined(features: Array, scaled: Array, begin: Array) -> Any:
    from scipy.optimize import least_squares  # here, so that a screen that shows a law does not wait for SciPy

    runs, domains = features.shape
    shrink = np.sqrt(RIDGE) * np.eye(domains + 2)
    shrink[0], shrink[1, 1] = shrink[0] * 1e-2, 1e-6  # c hardly, b not at all: only enough to have one answer

    def rise(x: Array) -> Array:
        return np.asarray(np.exp(np.minimum(x[1] + features @ x[2:], 50)))

    def residuals(x: Array) -> Array:
        return np.concatenate([x[0] + rise(x) - scaled, shrink @ x])

    def jacobian(x: Array) -> Array:
        height = rise(x)[:, None]
        return np.vstack([np.hstack([np.ones((runs, 1)), height, height * features]), shrink])

    return least_squares(residuals, begin, jac=jacobian, method="lm", max_nfev=300)


@dataclass(frozen=True)
class GaussianProcess:
    """Gaussian-process regression on √w with a linear and a squared-exponential kernel (Rasmussen & Williams 2006 §2.2)."""

    features: Array
    solved: Array
    """K⁻¹·y of the standardised losses."""
    hyper: tuple[float, float, float, float]
    """Logs of the linear scale, the curved scale, the length and the noise."""
    mean: float
    scale: float
    factor: Array
    """Lower Cholesky factor of K."""

    def predict(self, weights: Array) -> Array:
        """Losses (…,) of mixtures (…, domains)."""
        return np.asarray(self.mean + self.scale * (self._cross(weights) @ self.solved))

    def deviation(self, weights: Array) -> Array:
        """Standard deviation (…,) of the law itself, without a run's own noise."""
        points = np.sqrt(np.atleast_2d(weights))
        cross = np.linalg.solve(self.factor, self._cross(np.atleast_2d(weights)).T)
        own = np.exp(2 * self.hyper[0]) * (points**2).sum(-1) + np.exp(2 * self.hyper[1])
        return np.asarray(self.scale * np.sqrt(np.maximum(own - (cross**2).sum(0), 0))).reshape(weights.shape[:-1])

    def _cross(self, weights: Array) -> Array:
        return _kernel(np.sqrt(np.maximum(weights, 0)), self.features, self.hyper)


def _kernel(left: Array, right: Array, hyper: tuple[float, ...]) -> Array:
    inner = left @ right.T
    apart = (left**2).sum(-1)[..., None] + (right**2).sum(-1) - 2 * inner
    line, curve, length = (np.exp(2 * value) for value in hyper[:3])
    return np.asarray(line * inner + curve * np.exp(-0.5 * np.maximum(apart, 0) / length))


def fit_process(weights: Array, losses: Array) -> GaussianProcess:
    """A Gaussian process with the hyperparameters of greatest marginal likelihood from two starts. Raises `LabError`."""
    from scipy.optimize import minimize

    check_runs(weights, losses)
    features, mean, scale = np.sqrt(weights), float(losses.mean()), float(losses.std()) or 1.0
    scaled = (losses - mean) / scale

    def surprise(hyper: Array) -> float:
        factor = _factor(features, tuple(hyper))
        half = np.linalg.solve(factor, scaled)
        return float(0.5 * half @ half + np.log(np.diag(factor)).sum() + 0.005 * (hyper**2).sum())

    starts = ((0.0, 0.0, -0.5, -2.0), (0.0, 0.0, 0.5, -1.0))
    bounds = [(-5, 4), (-5, 4), (-3, 3), (-6, 1)]
    best = min((minimize(surprise, s, method="L-BFGS-B", bounds=bounds) for s in starts), key=lambda found: found.fun)
    line, curve, length, noise = (float(value) for value in best.x)
    hyper = (line, curve, length, noise)
    factor = _factor(features, hyper)
    solved = np.linalg.solve(factor.T, np.linalg.solve(factor, scaled))
    return GaussianProcess(features, solved, hyper, mean, scale, factor)


def _factor(features: Array, hyper: tuple[float, ...]) -> Array:
    noise = (np.exp(2 * hyper[3]) + 1e-8) * np.eye(len(features))
    return np.linalg.cholesky(_kernel(features, features, hyper) + noise)


def fit_trees(weights: Array, losses: Array) -> Predictor:
    """LightGBM with RegMix's settings (arXiv 2407.01492) and no early stopping, so that no held-out run is looked at.

    Raises `LabError` where lightgbm is not installed.
    """
    check_runs(weights, losses)
    if find_spec("lightgbm") is None:
        raise LabError("lightgbm is not installed; pip install lightgbm, or use the exponential law")
    settings = {"objective": "regression", "learning_rate": 1e-2, "verbosity": -1, "seed": 42, "num_threads": 1}
    lightgbm = import_module("lightgbm")
    trained: Predictor = lightgbm.train(settings, lightgbm.Dataset(weights, losses), num_boost_round=1000)
    return trained


def fitters() -> dict[str, Fitter]:
    """Every way to fit that can be used here, by name; the default first."""
    found: dict[str, Fitter] = {
        "exponential": fit_exponential,
        "exponential on √w": lambda weights, losses: fit_exponential(weights, losses, root=True),
        "Gaussian process": fit_process,
    }
    return {**found, "LightGBM": fit_trees} if find_spec("lightgbm") else found
