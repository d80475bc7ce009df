"""How deep a generation a model's text is: what it, and the models that it was made from, were trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lablib.data import shards
from lablib.runs import artefacts
from lablib.specs import LabError, Ref, Task, parse_recipe


def trained_on(model: Path) -> tuple[int, bool]:
    """(Greatest known generation of the text that a model learned from, whether all of it is known), over the runs that made it.

    `model` is the folder ``<run>/<artefact>``, or any other folder, of which nothing is known. What a model samples while
    it is trained by reward does not count: it learns from the verifier, not to write like that.
    """
    found = list(_of_run(model.absolute().parent))
    return max((depth for depth in found if depth is not None), default=0), None not in found


def _of_run(run: Path) -> Iterator[int | None]:
    """The generation of each data that a run's model learned from, None where that is not known."""
    file = run / "recipe.json"
    if not file.is_file():
        yield None
        return
    recipe = parse_recipe(json.loads(file.read_text(encoding="utf-8")))
    yield _read(run, getattr(recipe, "data", None))
    before = getattr(recipe, "model", None)
    if isinstance(before, Ref):
        yield from _of_run(run.parent / before.run)
    elif isinstance(before, str):
        yield from _of_run(Path(before).absolute().parent)


def _read(run: Path, data: Any) -> int | None:
    """Greatest generation in a recipe's data; a task's answers are a program's."""
    if data is None or isinstance(data, Task):
        return 0
    if isinstance(data, Ref):
        made = artefacts.load(run.parent / data.run).get(data.artefact)
        return None if made is None else _prepared(run.parent / data.run / made.path)
    if (run / "data" / "manifest.json").is_file():
        return _prepared(run / "data")
    file = Path(data)
    if file.suffix != ".jsonl" or not file.is_file():
        return None
    with file.open(encoding="utf-8", errors="replace") as lines:
        return max(map(_row, lines), default=0)


def _prepared(folder: Path) -> int | None:
    """Of a prepared folder's documents; None where it is no longer there."""
    try:
        domains = shards.manifest(folder)["domains"]
    except LabError:
        return None
    return max((int(facts.get("provenance", {}).get("generation", 0)) for facts in domains.values()), default=0)


def _row(line: str) -> int:
    """What a row says; 0 where it says nothing, or is none, which is for the stage that reads it to refuse."""
    try:
        depth = json.loads(line)["generation"]
    except (ValueError, TypeError, LookupError):
        return 0
    return int(depth) if isinstance(depth, int | float) and depth == depth else 0
