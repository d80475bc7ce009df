"""From item rows to ``scores.json``: the shape that reports, comparisons and reproductions read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from lablib.evals import heldout
from lablib.evals import statistics as st
from lablib.runs import jsonl
from lablib.specs import Evaluate

Row = dict[str, Any]


@dataclass
class Scored:
    """Item rows by (model, task) and then by the item's key; a row that is written again replaces the earlier one."""

    rows: dict[tuple[str, str], dict[str, Row]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Scored:
        """What an earlier attempt of the run left."""
        found = cls()
        found._take(jsonl.read(path))
        return found

    def _take(self, rows: list[Row]) -> None:
        for row in rows:
            self.rows.setdefault((row["model"], row["task"]), {})[row["key"]] = row

    def add(self, path: Path, rows: list[Row]) -> None:
        """Append rows to the file and keep them."""
        for row in rows:
            jsonl.append(path, row)
        self._take(rows)

    def has(self, model: str, task: str, items: int) -> bool:
        """Whether a model is done with a task."""
        return len(self.rows.get((model, task), {})) >= items

    def of(self, model: str, task: str) -> dict[str, Row]:
        """A model's rows of a task by item key, in the items' order."""
        return self.rows.get((model, task), {})


def summarise(recipe: Evaluate, found: Scored, references: list[Row]) -> dict[str, Any]:
    """``scores`` (each with interval and count), ``comparisons`` (with the baseline and with the model before, each
    paired on the same items, with interval and verdict) and ``references`` (what no model is needed for).

    A difference is oriented so that above zero is better: shares right gained, bits per byte saved.
    """
    tasks = [task.name for task in recipe.tasks] + list(recipe.needle.tasks if recipe.needle else ())
    labels = list(recipe.models)
    scores = [_share(found, label, task) for task in tasks for label in labels]
    comparisons = [_gain(found, pair, task) for task in tasks for pair in pairs(labels, recipe.baseline)]
    if recipe.data is not None:
        scores += [_bits(found, label) for label in labels]
        comparisons += [_saving(found, pair) for pair in pairs(labels, recipe.baseline)]
    return {
        "schema": 1,
        "confidence": st.CONFIDENCE,
        "baseline": recipe.baseline,
        "models": labels,
        "scores": scores,
        "comparisons": comparisons,
        "references": references,
    }


def pairs(labels: list[str], baseline: str) -> list[tuple[str, str, str]]:
    """(model, compared with, why): each with the baseline, and with the model before it in the chain."""
    found = [(label, baseline, "baseline") for label in labels if label != baseline]
    chain = [(after, before, "previous") for before, after in pairwise(labels)]
    return found + [pair for pair in chain if pair[:2] not in {known[:2] for known in found} and pair[0] != baseline]


def _share(found: Scored, label: str, task: str) -> Row:
    rows = list(found.of(label, task).values())
    scores = [row["score"] for row in rows if row["score"] is not None]
    interval = st.mean_interval(scores)
    counts = {"items": len(scores), "unscored": len(rows) - len(scores), "errors": sum(bool(row["error"]) for row in rows)}  # fmt: skip
    return {"model": label, "task": task, "metric": "accuracy", "unit": "share", **asdict(interval), **counts}


def _gain(found: Scored, pair: tuple[str, str, str], task: str) -> Row:
    mine, theirs = found.of(pair[0], task), found.of(pair[1], task)
    keys = [key for key in mine if key in theirs and None not in (mine[key]["score"], theirs[key]["score"])]
    result = st.paired_difference([mine[key]["score"] for key in keys], [theirs[key]["score"] for key in keys])
    return _comparison(pair, task, "accuracy", result)


def _bits(found: Scored, label: str) -> Row:
    rows = list(found.of(label, heldout.NAME).values())
    interval = st.ratio_interval([row["bits"] for row in rows], [row["bytes"] for row in rows])
    name = {"model": label, "task": heldout.NAME, "metric": "bits per byte", "unit": "bits per byte"}
    return {**name, **asdict(interval), "items": len(rows), "unscored": 0, "errors": 0}


def _saving(found: Scored, pair: tuple[str, str, str]) -> Row:
    """Bits per byte saved on the same documents; bytes are the model's own (tokenizers may skip other first tokens)."""
    mine, theirs = found.of(pair[0], heldout.NAME), found.of(pair[1], heldout.NAME)
    keys = [key for key in mine if key in theirs]
    sizes = [mine[key]["bytes"] for key in keys]
    before = [theirs[key]["bits"] * (size / theirs[key]["bytes"]) for key, size in zip(keys, sizes, strict=True)]
    result = st.ratio_saving([mine[key]["bits"] for key in keys], before, sizes)
    return _comparison(pair, heldout.NAME, "bits per byte saved", result)


def _comparison(pair: tuple[str, str, str], task: str, metric: str, result: st.Difference) -> Row:
    model, baseline, why = pair
    facts = {key: value for key, value in asdict(result).items() if key != "value"}
    name = {"model": model, "baseline": baseline, "against": why, "task": task, "metric": metric}
    return {**name, "difference": result.value, **facts, "verdict": result.verdict}
