"""How sure a score is, and whether a difference between two models on the same items is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from lablib.specs import LabError

Verdict = Literal["improvement", "regression", "no result"]
Array = np.ndarray
RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A point estimate and its two-sided interval at `CONFIDENCE`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Model minus baseline on the same items, in the score's own unit."""

    value: float
    low: float
    high: float
    items: int
    p: float | None
    """Exact McNemar test where scores are 0 or 1; None elsewhere."""
    method: str

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say: only an interval without zero is a result."""
        if self.low > 0:
            return "improvement"
        return "regression" if self.high < 0 else "no result"


def is_binary(scores: Sequence[float]) -> bool:
    """Whether every score is 0 or 1."""
    return set(map(float, scores)) <= {0.0, 1.0}


def mean_interval(scores: Sequence[float], seed: int = 0) -> Interval:
    """Mean of n scores: Wilson's interval for shares, a percentile bootstrap otherwise. Raises `LabError` for none."""
    if not len(scores):
        raise LabError("There are no scores to average: every item failed to be scored")
    if is_binary(scores):
        return wilson(int(sum(scores)), len(scores))
    values = np.asarray(scores, dtype=float)
    means = _resampled(len(values), seed) @ values / len(values)
    return Interval(float(values.mean()), *_tails(means))


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927): inside [0, 1] and honest near its ends."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = float(centre - half), float(centre + half)
    return Interval(share, low if successes else 0.0, high if successes < trials else 1.0)


def paired_difference(model: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Difference:
    """Mean of item-wise differences with its interval, for two models' scores of the same items in the same order.

    For shares, Bonett and Price's interval: of the simple ones the one that Fagerland, Lydersen and Laake recommend for
    paired shares (Stat. Med. 33:2850, 2014); a bootstrap would call four wins and no loss a result. For other scores a
    percentile bootstrap over items. Raises `LabError` where the two are not of the same items.
    """
    if len(model) != len(baseline) or not len(model):
        raise LabError(f"{len(model)} scores cannot be paired with {len(baseline)}; evaluate both models on the same items")  # fmt: skip
    if is_binary(model) and is_binary(baseline):
        wins = sum(a > b for a, b in zip(model, baseline, strict=True))
        losses = sum(a < b for a, b in zip(model, baseline, strict=True))
        return paired_shares(wins, losses, len(model))
    gain = np.asarray(model, dtype=float) - np.asarray(baseline, dtype=float)
    means = _resampled(len(gain), seed) @ gain / len(gain)
    return Difference(float(gain.mean()), *_tails(means), len(gain), None, "paired bootstrap over items")


def paired_shares(wins: int, losses: int, items: int) -> Difference:
    """The difference of two paired shares from its discordant counts (Bonett & Price, J. Educ. Behav. Stat. 37:479, 2012).

    With p1 = (wins + 1)/(n + 2) and p2 = (losses + 1)/(n + 2) the interval is p1 − p2 ± z·sqrt((p1 + p2 − (p1 − p2)²)/(n + 2)).
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    p1, p2 = (wins + 1) / (items + 2), (losses + 1) / (items + 2)
    half = z * float(np.sqrt((p1 + p2 - (p1 - p2) ** 2) / (items + 2)))
    low, high = max(-1.0, p1 - p2 - half), min(1.0, p1 - p2 + half)
    return Difference((wins - losses) / items, low, high, items, mcnemar(wins, losses), "Bonett-Price paired interval")


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test: were the discordant items a fair coin's (Psychometrika 12:153, 1947)?"""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def paired_error(model: Sequence[float], baseline: Sequence[float]) -> float:
    """Standard error of the mean item-wise difference (ddof 1): what pairing leaves of the noise."""
    gain = np.asarray(model, dtype=float) - np.asarray(baseline, dtype=float)
    return float(gain.std(ddof=1) / np.sqrt(len(gain)))


def ratio_interval(amounts: Sequence[float], sizes: Sequence[float], seed: int = 0) -> Interval:
    """Sum of `amounts` over sum of `sizes` (bits over bytes), with a bootstrap over the documents they belong to."""
    top, bottom = np.asarray(amounts, dtype=float), np.asarray(sizes, dtype=float)
    draws = _resampled(len(top), seed)
    return Interval(float(top.sum() / bottom.sum()), *_tails((draws @ top) / (draws @ bottom)))


def ratio_saving(
    model: Sequence[float], baseline: Sequence[float], sizes: Sequence[float], seed: int = 0
) -> Difference:
    """How much lower the model's ratio is than the baseline's (positive is better), resampling whole documents."""
    saved, bottom = np.asarray(baseline, dtype=float) - np.asarray(model, dtype=float), np.asarray(sizes, dtype=float)
    draws = _resampled(len(saved), seed)
    tails = _tails((draws @ saved) / (draws @ bottom))
    return Difference(float(saved.sum() / bottom.sum()), *tails, len(saved), None, "paired bootstrap over documents")


def _resampled(items: int, seed: int) -> Array:
    """How often each item is drawn in each of `RESAMPLES` resamples with replacement, (RESAMPLES, items)."""
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(float)


def _tails(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
