"""What the chain's data says of a benchmark: whether its items were searched for, found, and taken out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lablib.report.markup import Markup, table, tag
from lablib.runs import Run

MARKS = {"clean": "✓", "contaminated": "✗", "not indexed": "?"}
TONES = {"clean": "good", "contaminated": "bad", "not indexed": "muted"}
COLUMNS = ("benchmark", "index", "items", "documents with one", "where the items are, or why they are missing")


def read(run: Run) -> dict[str, Any] | None:
    """The report of the run's search without its matches; None where there was no search."""
    file = run.path / "contamination" / "report.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {name: found[name] for name in ("method", "documents", "bytes", "coverage", "removed")}


def status(task: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """``clean``, ``contaminated`` or ``not indexed`` for a task, given as its recipe says, over all data of the chain: one
    data stage that did not search for these very items leaves it open."""
    told = {_of_one(task, run) for run in runs if run["data"]}
    return next((word for word in ("contaminated", "not indexed", "clean") if word in told), "not indexed")


def _of_one(task: dict[str, Any], run: dict[str, Any]) -> str:
    found = run["contamination"]
    coverage = {one["name"]: one for one in found["coverage"]} if found else {}
    one = coverage.get(task["name"])
    if found is None or one is None or one["reason"] or not _same_items(task, run["recipe"]):
        return "not indexed"
    return "clean" if found["removed"] or not one["documents"] else "contaminated"


def _same_items(task: dict[str, Any], recipe: dict[str, Any]) -> bool:
    """Whether a generated task of that name has the same test items; a public benchmark is known by its name."""
    indexed = {one["name"]: one for one in recipe["decontaminate"]["benchmarks"] if isinstance(one, dict)}
    decides = ("generator", "params", "seed", "train", "test")
    other = indexed.get(task["name"])
    return other is None or all(other.get(name) == task.get(name) for name in decides)


def badge(word: str) -> Markup:
    """The status as a sign and a word."""
    return tag("span", f"{MARKS[word]} {word}", class_=TONES[word])


def listed(run: dict[str, Any]) -> list[Markup]:
    """Every benchmark of a data stage, present or missing."""
    found = run["contamination"]
    if found is None:
        return [tag("p", "The data was not searched for items of any benchmark.", class_="muted")]
    rows = [
        (one["name"], "present" if not one["reason"] else "missing", f"{one['items']:,}", f"{one['documents']:,}", one["source"] or one["reason"])
        for one in found["coverage"]
    ]  # fmt: skip
    verb = "taken out" if found["removed"] else "left in"
    words = f"Documents with an item of a benchmark were {verb}. Of a missing one nothing can be said; paraphrases are not covered."
    return [table(COLUMNS, rows, "Decontamination"), tag("p", words, class_="muted")]
