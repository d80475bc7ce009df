"""What a banding can and cannot find: the S-curve, and what a share of changed words does to the Jaccard similarity.

Pure functions of floats or arrays; no text is read. The S-curve is Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
QUANTILES = 401
"""Points at which the distribution of a copy's similarity is summed; more change the fourth digit."""


def catch(jaccard: ArrayLike, bands: int, rows: int) -> Floats:
    """Probability that a pair of this similarity is proposed: ``1 - (1 - J^r)^b``."""
    return np.asarray(1 - (1 - np.asarray(jaccard, dtype=np.float64) ** rows) ** bands)


def steepest(bands: int, rows: int) -> float:
    """Where the S-curve rises, about: ``(1/b)^(1/r)``."""
    return float((1 / bands) ** (1 / rows))


def untouched(rate: ArrayLike, ngram: int) -> Floats:
    """Share q of a document's shingles that stay when each word is changed with probability `rate`: ``(1 - p)^n``."""
    return np.asarray((1 - np.asarray(rate, dtype=np.float64)) ** ngram)


def edited_jaccard(rate: ArrayLike, ngram: int) -> Floats:
    """Similarity of a document and its copy with a share of words changed: ``J = q / (2 - q)``.

    Both have the same number of shingles, q of them in common; the union is 2 - q. Taken at the mean of q, for documents
    without repeated shingles whose new words are new.
    """
    left = untouched(rate, ngram)
    return np.asarray(left / (2 - left))


def edit_rate(jaccard: float, ngram: int) -> float:
    """The share of changed words that leads to this similarity: the inverse of `edited_jaccard`."""
    return float(1 - (2 * jaccard / (1 + jaccard)) ** (1 / ngram))


def spread(rate: float, ngram: int, words: int) -> float:
    """Standard deviation of the share of untouched shingles over copies of a document of so many words.

    Shingles that overlap share their fate: two that lie k < n words apart both stay with probability (1 - p)^(n + k), so
    their covariance is that less q^2; the variance of the mean sums it over all pairs.
    """
    number, q = max(1, words - ngram + 1), float(untouched(rate, ngram))
    lags = np.arange(1, min(ngram, number))
    shared = (1 - rate) ** (ngram + lags) - q * q
    return float(np.sqrt(max(0.0, q * (1 - q) + 2 * np.sum(shared * (1 - lags / number))) / number))


def found(rate: float, ngram: int, bands: int, rows: int, threshold: float, words: int) -> float:
    """Probability that a copy with a share `rate` of its `words` words changed is proposed and verified.

    Its similarity must reach the threshold, which chance decides for short documents, and the banding must propose it;
    summed over the normal distribution of the untouched share (`untouched`, `spread`).
    """
    q, sigma = float(untouched(rate, ngram)), spread(rate, ngram, words)
    shares = np.clip(q + sigma * ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES), 0, 1)
    jaccard = shares / (2 - shares)
    return float(np.mean(np.where(jaccard >= threshold - 1e-12, catch(jaccard, bands, rows), 0.0)))


@dataclass(frozen=True)
class Cost:
    """What a banding takes for each document."""

    hashes: int
    """Hash functions that are tried on every shingle."""
    document_bytes: int
    """Of memory or disk: a 64-bit hash for each band."""
    needless: float
    """Share of the pairs at half the threshold that are compared for nothing."""


def cost(bands: int, rows: int, threshold: float) -> Cost:
    """The price of a banding; see `Cost`."""
    return Cost(bands * rows, 8 * bands, float(catch(threshold / 2, bands, rows)))
