"""What an evaluation left in its folder, in the shape that reports and comparisons read."""

from __future__ import annotations

from typing import Any

from lablib.runs import Run
from lablib.runs.jsonl import read as read_lines

SHOWN = 2
"""Samples of each model and task."""


def read(run: Run) -> dict[str, Any] | None:
    """``scores`` and ``comparisons`` of an evaluation run; None for any other."""
    import json

    made = run.artefacts.get("scores")
    if made is None:
        return None
    found: dict[str, Any] = json.loads((run.path / made.path).read_text(encoding="utf-8"))
    return found


def samples(run: Run) -> list[dict[str, Any]]:
    """The first items of each model and task, as they were answered; what has no text is left out."""
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in read_lines(run.path / "evals" / "items.jsonl"):
        text = item.get("completion", item.get("answer"))
        bucket = kept.setdefault((item["model"], item["task"]), [])
        if text and len(bucket) < SHOWN:
            told = {key: item.get(key) for key in ("model", "task", "prompt", "right", "score")}
            bucket.append({**told, "text": text})
    return [sample for bucket in kept.values() for sample in bucket]
