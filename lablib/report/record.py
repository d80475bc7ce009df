"""The record of a report: everything that it says, as plain JSON, taken from run folders once.

Sections are written from the record alone, so what a program reads in the file is what a person reads in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lablib.explorers import Monitor
from lablib.explorers.monitor import HEALING, sides
from lablib.explorers.planned import planned
from lablib.report import contamination, scores, synthetic
from lablib.runs import Run
from lablib.runs.account import account
from lablib.runs.traces import traces

SCHEMA = 1
Record = dict[str, Any]
RunRecord = dict[str, Any]
SHOWN_EVENTS = ("started", "completed", "stopped", "failed", "lost", "checkpoint", "resumed", *HEALING)


def collect(runs: Sequence[Run], question: str, title: str) -> Record:
    """The record of a chain of runs, in the order given. Reads only; an unfinished run is recorded as it is now."""
    return {"schema": SCHEMA, "title": title, "question": question, "runs": [_run(run) for run in runs]}


def _run(run: Run) -> RunRecord:
    recipe, cluster = run.recipe, run.cluster
    made = {
        "id": run.id,
        "stage": recipe.stage,
        "name": recipe.name,
        "state": str(run.state),
        "recipe": recipe.model_dump(mode="json"),
        "recipe_hash": recipe.content_hash,
        "science_hash": recipe.science_hash,
        "cluster": None if cluster is None else cluster.model_dump(mode="json"),
        "estimate": run.estimate,
        "forecast": run.forecast,
        "planned": asdict(planned(run)),
        "outcome": asdict(run.outcome),
        "frames": dict(Monitor(run).view().frames),
        "sides": sides(run.rows("eval")),
        "manifest": run.manifest,
        "artefacts": [asdict(item) for item in run.artefacts.values()],
        "events": [event for event in run.events() if event["kind"] in SHOWN_EVENTS],
        "account": _account(run),
        "traces": [
            {**asdict(trace), "file": _inside(run, trace.file), "memory": _inside(run, trace.memory)}
            for trace in traces(run)
        ],
        "failure": run.failure,
        "data": _data(run),
        "contamination": contamination.read(run),
        "synthetic": synthetic.read(run),
        "scores": scores.read(run),
        "samples": scores.samples(run),
    }
    return _finite(made)


def _account(run: Run) -> dict[str, Any] | None:
    found = account(run)
    return None if found is None else asdict(found)


def _inside(run: Run, file: Path | None) -> str | None:
    """A file of the run by its place in the run's folder."""
    return None if file is None else str(file.relative_to(run.path))


def _data(run: Run) -> dict[str, Any] | None:
    """The corpus manifest of a data stage."""
    made = run.artefacts.get("data")
    file = run.path / made.path / "manifest.json" if made else Path()
    if not made or not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _finite(value: Any) -> Any:
    """JSON has no NaN; a number that is none becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
