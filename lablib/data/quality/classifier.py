"""A quality classifier: hashed words and word pairs, logistic regression, and its figures on documents it never saw.

Labels are those that a source states itself (`Document.label`). The score is a column of the table like any other.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit
from scipy.stats import binomtest

from lablib.data import cache
from lablib.data.documents import Document, Source
from lablib.data.quality.splitters import Floats, Words, split
from lablib.specs import LabError, digest

VERSION = 1
"""Raised when the same documents would train other weights."""
BITS = 18
"""Of the hash: 262,144 weights."""
READ = 20_000
"""Characters from the start that are read; what a text is shows long before."""
PENALTY = 1.0
"""Half the weights' squared norm times this is added to the summed loss."""
BATCH = 500
"""Documents that are scored at once."""
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Share:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """How well scores tell good documents from bad ones."""

    auc: Share
    """Chance that a good document scores above a bad one; interval by DeLong et al. 1988."""
    accuracy: Share
    """At a score of one half; interval by Wilson 1927."""
    good: int
    bad: int


@dataclass(frozen=True, eq=False)
class Classifier:
    """Weights of hashed features; `scores` are chances of the good label."""

    weights: Floats
    bias: float

    @property
    def key(self) -> str:
        """Changes with the weights."""
        return digest([BITS, READ, zlib.crc32(self.weights.tobytes()), self.bias])

    def scores(self, texts: Sequence[str]) -> Floats:
        """0 to 1 for each text."""
        parts = [features(texts[i : i + BATCH]) @ self.weights for i in range(0, len(texts), BATCH)]
        return np.asarray(expit(np.concatenate([*parts, np.zeros(0)]) + self.bias), np.float64)

    def save(self, path: Path) -> None:
        """One .npz file."""
        np.savez_compressed(path, weights=self.weights, bias=self.bias)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """What `save` wrote."""
        with np.load(path) as held:
            return cls(held["weights"], float(held["bias"]))


def features(texts: Sequence[str]) -> csr_matrix:
    """(texts, 2^BITS) matrix: which hashed lower-case words and pairs of neighbours occur, each row of unit length."""
    words = split(pl.Series([text[:READ].lower() for text in texts], dtype=pl.String), "words")
    rows, columns = _hashed(words)
    cells = np.unique((rows << BITS) | columns)
    rows, columns = cells >> BITS, cells & ((1 << BITS) - 1)
    counts = np.bincount(rows, minlength=len(texts))
    return csr_matrix((1 / np.sqrt(counts[rows]), (rows, columns)), shape=(len(texts), 1 << BITS))


def _hashed(words: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(Document, bucket) of every word and pair. CRC-32 is the same in every version of every library."""
    crc = np.array([zlib.crc32(word.encode()) for word in words.distinct], np.uint64)[words.code]
    paired = np.flatnonzero(np.diff(words.document) == 0)
    pairs = (crc[paired] * np.uint64(31) + crc[paired + 1]) * _ODD
    shift = np.uint64(64 - BITS)
    buckets = np.concatenate([(crc * _ODD) >> shift, pairs >> shift]).astype(np.int64)
    return np.concatenate([words.document, words.document[paired]]), buckets


def train(texts: Sequence[str], good: Sequence[bool]) -> Classifier:
    """Logistic regression by L-BFGS, each class with the same weight in all. Raises `LabError` where a class is missing."""
    wanted = np.asarray(good, bool)
    if not wanted.any() or wanted.all():
        raise LabError("A classifier needs documents of both kinds; these are all " + ("good" if wanted.any() else "bad"))  # fmt: skip
    seen = features(texts)
    sign = np.where(wanted, 1.0, -1.0)
    weight = np.where(wanted, 0.5 / wanted.mean(), 0.5 / (1 - wanted.mean()))

    def loss(point: Floats) -> tuple[float, Floats]:
        margin = sign * (seen @ point[:-1] + point[-1])
        pull = -weight * sign * expit(-margin)
        value = float(weight @ np.logaddexp(0, -margin) + PENALTY / 2 * point[:-1] @ point[:-1])
        return value, np.append(seen.T @ pull + PENALTY * point[:-1], pull.sum())

    found = minimize(loss, np.zeros(seen.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return Classifier(found.x[:-1], float(found.x[-1]))


def halves(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Labelled documents in two halves by their hash: the same halves whatever the order."""
    first: list[Document] = []
    second: list[Document] = []
    for document in documents:
        if document.label:
            (first if int(document.sha256[-1], 16) % 2 else second).append(document)
    return first, second


def held_out(documents: Iterable[Document], good: str) -> tuple[Classifier, Figures]:
    """Train on one half of the documents, where the label `good` is wanted, and measure on the other. Equal texts fall
    into the same half; near-duplicates may stand in both, which makes the figures kinder than new text would."""
    first, second = halves(documents)
    trained = train([d.text for d in first], [d.label == good for d in first])
    return trained, figures(trained.scores([d.text for d in second]), [d.label == good for d in second])


def learned(source: Source, good: str) -> tuple[Classifier, Figures]:
    """`held_out` on a labelled source, fetched and trained once and stored by the source's fingerprint. Raises `LabError`
    where the source cannot be had."""
    if why := source.unavailable():
        raise LabError(f"The classifier's labelled documents cannot be had: {why}")
    source.fetch()

    def build(folder: Path) -> None:
        trained, measured = held_out((one for one in source.documents() if isinstance(one, Document)), good)
        trained.save(folder / "weights.npz")
        (folder / "figures.json").write_text(json.dumps(asdict(measured)), encoding="utf-8")

    key = digest([VERSION, BITS, READ, PENALTY, source.fingerprint(), good])
    folder = cache.made("classifiers", key, build)
    told = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    shares = {name: Share(**told[name]) for name in ("auc", "accuracy")}
    return Classifier.load(folder / "weights.npz"), Figures(**{**told, **shares})


def figures(scores: Floats, good: Sequence[bool]) -> Figures:
    """AUC and accuracy with their intervals. Raises `LabError` where a class has fewer than two documents."""
    wanted = np.asarray(good, bool)
    high, low = scores[wanted], np.sort(scores[~wanted])
    if min(len(high), len(low)) < 2:
        raise LabError("Two documents of each kind at least are needed to measure a classifier")
    above = _placed(high, low)
    below = 1 - _placed(low, np.sort(high))
    auc = float(above.mean())
    spread = 1.959964 * float(np.sqrt(above.var(ddof=1) / len(high) + below.var(ddof=1) / len(low)))
    right = int(((scores >= 0.5) == wanted).sum())
    return Figures(
        Share(auc, max(0.0, auc - spread), min(1.0, auc + spread)), _counted(right, len(scores)), len(high), len(low)
    )


def _placed(values: Floats, others: Floats) -> Floats:
    """Share of the sorted others below each value, ties counting half."""
    sides = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    return np.asarray(sides / (2 * len(others)), np.float64)


def _counted(hits: int, of: int) -> Share:
    """A share with its score interval (Wilson 1927)."""
    interval = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Share(hits / of, float(interval.low), float(interval.high))


def with_scores(table: pl.DataFrame, documents: Iterable[Document], classifier: Classifier) -> pl.DataFrame:
    """The table with a column ``quality``, the classifier's score; null where a document is not among these."""
    known = set(table["sha256"].to_list())
    names, texts = [], []
    for document in documents:
        if (name := document.sha256) in known:
            names.append(name)
            texts.append(document.text[:READ])
    scored = pl.DataFrame({"sha256": names, "quality": classifier.scores(texts)}, schema_overrides={"sha256": pl.String, "quality": pl.Float64})  # fmt: skip
    rest = table.drop("quality", strict=False)
    return rest.join(scored.unique("sha256"), on="sha256", how="left", maintain_order="left")
