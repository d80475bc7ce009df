"""Traces of a run: asked for through a file in its folder, made by its ranks, read back as a table of operators."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lablib.runs import documents
from lablib.runs.orders import TRACE
from lablib.runs.run import Run
from lablib.specs import LabError, write_atomic

FOLDER, KIND, TOP = "traces", "trace", 20
TRACED = ("pretrain", "midtrain")
"""Stages whose loop looks for a request."""
MOST = 100
"""Steps of one trace: a file of a gigabyte opens nowhere."""


@dataclass(frozen=True)
class Trace:
    """What one rank recorded."""

    name: str
    """Of the artefact."""
    rank: int
    file: Path
    """Chrome trace (ui.perfetto.dev opens it), gzip'd JSON."""
    by: str
    """``cpu_ms`` or ``device_ms``: what `ops` is sorted by."""
    total_ms: float
    ops: tuple[dict[str, Any], ...]
    """``op``, ``calls``, ``cpu_ms`` and ``device_ms`` of its own, operators inside it excluded."""
    memory: Path | None
    """CUDA memory snapshot (pytorch.org/memory_viz), where there was CUDA."""


def request(run: Run, steps: int) -> None:
    """Ask a working run to trace its next `steps` steps. Raises `LabError` where it cannot."""
    if run.recipe.stage not in TRACED:
        raise LabError(f"run {run.id} is of stage {run.recipe.stage}, which is not traced; only {', '.join(TRACED)} is")
    if not 1 <= steps <= MOST:
        raise LabError(f"steps={steps}: a trace is of 1 to {MOST} steps")
    if run.state.finished:
        raise LabError(f"run {run.id} is {run.state}: only a working run can be traced")
    write_atomic(run.path / TRACE, json.dumps({"steps": steps, "at": time.time()}))


def traces(run: Run) -> list[Trace]:
    """Every rank's traces, oldest first."""
    kept = [made for made in run.artefacts.values() if made.kind == KIND]
    return [trace for made in kept for trace in _ranks(made.name, run.path / made.path)]


def _ranks(name: str, folder: Path) -> list[Trace]:
    found = []
    for file in folder.glob("rank-*.ops.json"):
        stem = file.name.removesuffix(".ops.json")
        told = documents.table(file, "by", "total_ms", "ops") or {}
        memory = folder / f"{stem}.memory.pickle"
        found.append(Trace(name, int(stem.removeprefix("rank-")), folder / f"{stem}.json.gz", told["by"], told["total_ms"], tuple(told["ops"]), memory if memory.is_file() else None))  # fmt: skip
    return sorted(found, key=lambda trace: trace.rank)
