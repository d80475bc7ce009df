"""Laws of loss, L(N, D) = E + A/N^α + B/D^β in nats a token, each with the data it holds for.

Loss depends on data and tokenizer, so a law says nothing about another corpus beyond its shape. `tests/plan` checks the
published ones against published optima.
"""

from __future__ import annotations

from math import log

import numpy as np

from lablib.specs import Spec


class Law(Spec):
    """N counts all parameters, D tokens seen once."""

    name: str
    e: float
    """Loss that neither size nor data would remove."""
    a: float
    alpha: float
    b: float
    beta: float
    spread: float
    """Standard deviation of log(measured / predicted) where the law was fitted."""
    stable: float = 0.04
    """Loss above the law, as a share, while a schedule's learning rate is still at its peak: what the decay brings
    (arXiv 2404.06395 §4.2 shows some hundredths)."""
    sizes: tuple[float, float]
    """Fewest and most parameters in the fit."""
    tokens: tuple[float, float]
    corpus: str = ""
    """Name of the corpus, and `vocab` its tokenizer's size, where the law was fitted on one that the lab has."""
    vocab: int = 0
    data: str
    source: str

    def loss(self, params: float, tokens: float | np.ndarray) -> np.ndarray:
        """Nats a token after training `params` parameters on `tokens` tokens."""
        return self.e + self.a / params**self.alpha + self.b / np.asarray(tokens, dtype=float) ** self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of least loss for C = 6·N·D FLOPs: N = G·(C/6)^(β/(α+β)) with G = (αA/βB)^(1/(α+β)), arXiv 2203.15556
        eq. 4."""
        total = self.alpha + self.beta
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / total)
        params = scale * (flops / 6) ** (self.beta / total)
        return params, flops / 6 / params

    def outside(self, params: float, tokens: float) -> float:
        """How far a run lies beyond what was fitted, in factors of e of parameters and tokens together; 0 inside."""
        pairs = ((params, self.sizes), (tokens, self.tokens))
        return sum(max(0.0, log(low / x), log(x / high)) for x, (low, high) in pairs)


HOFFMANN = Law(
    name="Hoffmann 2022", e=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28, spread=0.02, sizes=(4.4e7, 1.6e10), tokens=(5e9, 5e11),
    data="MassiveText with a 32k SentencePiece vocabulary", source="arXiv 2203.15556 §D.3 (rounded exponents)",
)  # fmt: skip
EPOCH = Law(
    name="Epoch 2024", e=1.81686, a=482.006, alpha=0.34781, b=2085.43, beta=0.36585, spread=0.01, sizes=(4.4e7, 1.6e10),
    tokens=(2.5e8, 5e11), data="MassiveText with a 32k SentencePiece vocabulary (points read off Hoffmann's Figure 4)",
    source="arXiv 2404.10102, refit of Hoffmann's data",
)  # fmt: skip


LADDER = Law(
    name="this lab's ladder", e=1.5, a=617.1, alpha=0.6, b=98.316, beta=0.24774, spread=0.0128, stable=0.0, sizes=(3.7e5, 2.5e6),
    tokens=(1.8e5, 2.05e6), corpus="core", vocab=4096, data="the core corpus with a vocabulary of 4,096",
    source="bench/ladder.py, 2026-11-23 (docs/log.md)",
)  # fmt: skip
STEEPEST = 0.6
"""Largest exponent a fit may take: a ladder of two or three sizes would otherwise explain size by a cliff."""


def fit(
    params: np.ndarray, tokens: np.ndarray, losses: np.ndarray, floor: float
) -> tuple[float, float, float, float, float, float]:
    """(E, A, α, B, β, spread) that minimise a Huber loss on log L from several starts (arXiv 2203.15556 §D.2).

    `floor` is the least E that is allowed: a small ladder cannot see the irreducible loss, and without a floor trades it
    against exponents. Arrays have one entry a measured point.
    """
    from scipy.optimize import least_squares

    n, d, target = (np.asarray(x, dtype=float) for x in (params, tokens, np.log(losses)))
    bounds = ([-12, -5, np.log(0.05), -5, np.log(0.05)], [2, 15, np.log(STEEPEST), 15, np.log(STEEPEST)])

    def residuals(x: np.ndarray) -> np.ndarray:
        e, a, alpha, b, beta = floor + np.exp(x[0]), x[1], np.exp(x[2]), x[3], np.exp(x[4])
        return np.log(e + np.exp(a - alpha * np.log(n)) + np.exp(b - beta * np.log(d))) - target

    starts = [(e, a, np.log(alpha), b, np.log(beta)) for e in (-1.0, 0.3) for a in (2.0, 5.0) for alpha in (0.15, 0.4)
              for b in (4.0, 7.0) for beta in (0.25, 0.5)]  # fmt: skip
    fits = [least_squares(residuals, start, bounds=bounds, loss="huber", f_scale=0.03) for start in starts]
    x = min(fits, key=lambda one: one.cost).x
    found = (floor + np.exp(x[0]), np.exp(x[1]), np.exp(x[2]), np.exp(x[3]), np.exp(x[4]), np.std(residuals(x)))
    return tuple(float(value) for value in found)  # type: ignore[return-value]
