"""What a Synthesize run wrote, read back from its folder: its facts, and the completions that were kept or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lablib.data.samples import EXCERPT
from lablib.specs import LabError

FOLDER, FILE, MANIFEST = "corpus", "documents.jsonl", "manifest.json"
"""The artefact, and what is in it."""
PARTS = "parts"
"""Folder of every completion, with the reason where it was refused."""


def facts(run: Path) -> dict[str, Any] | None:
    """``manifest.json`` of the corpus that a run has written; None where it has not written one (yet)."""
    file = run / FOLDER / MANIFEST
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def require(run: Path) -> dict[str, Any]:
    """`facts`. Raises `LabError` where there are none."""
    found = facts(run)
    if found is None:
        raise LabError(f"run {run.name} has written no corpus; give a Synthesize run that has completed")
    return found


def kept(run: Path, count: int, skip: int = 0) -> list[dict[str, Any]]:
    """`count` documents in the order in which they were written, `skip` passed over: text (its first `EXCERPT` characters),
    source and generation of each."""
    rows = islice(_lines([run / FOLDER / FILE]), skip, skip + count)
    return [{**{name: row[name] for name in ("source", "generation")}, "text": row["text"][:EXCERPT]} for row in rows]


def refused(run: Path, count: int, skip: int = 0) -> list[dict[str, Any]]:
    """The same of completions that were refused: text and reason. Duplicates are not among them: one of each was kept."""
    rows = (row for row in _lines(sorted((run / PARTS).glob("part-*.jsonl"))) if row["refused"])
    return [{"reason": row["refused"], "text": row["written"][:EXCERPT]} for row in islice(rows, skip, skip + count)]


def _lines(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        if file.is_file():
            with file.open(encoding="utf-8", newline="\n") as lines:
                yield from map(json.loads, lines)
