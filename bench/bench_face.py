"""What the face costs: a look at a long run, an explorer's answer, a report. Prints JSON and keeps it under results."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lablib import Prepare, Pretrain, catalog
from lablib.explorers import BudgetPlan, Monitor
from lablib.report import export
from lablib.runs import Recorder, Run, jsonl

STEPS = 20_000
"""Steps of the long run: a day at four seconds each."""


def timed(work: Callable[[], Any], times: int) -> float:
    """Median milliseconds of a call."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return round(1e3 * median(taken), 2)


def long_run(root: Path) -> Run:
    """A run folder with many steps, made by a real recorder."""
    recipe = Pretrain(model=catalog.models["qwen3-0.6b"], tokens=STEPS * 524_288)
    run = Recorder.create(root, recipe)
    rows = (
        json.dumps(
            {
                "step": i,
                "loss": 2 + 6 / (1 + i / 500),
                "lr": 3e-4,
                "grad_norm": 1.0,
                "tokens_per_second": 1e5,
                "memory_gib": 40.0,
            }
        )
        for i in range(STEPS)
    )
    (run.path / "metrics").mkdir()
    (run.path / "metrics" / "train.jsonl").write_text("\n".join(rows) + "\n")
    return Run(run.path)


def measure(root: Path) -> dict[str, float]:
    """Milliseconds of each, and bytes of a snapshot and a report."""
    run = long_run(root)
    monitor = Monitor(run, 400)
    first = timed(monitor.view, 1)
    jsonl.append(run.path / "metrics" / "train.jsonl", {"step": STEPS, "loss": 2.0})
    again = timed(monitor.view, 5)
    small = Run(Recorder.create(root, Prepare(name="data")).path)
    return {
        "first_look_ms": first,
        "later_look_ms": again,
        "snapshot_bytes": len(json.dumps(monitor.view().words())),
        "explorer_answer_ms": timed(BudgetPlan().view, 20),
        "report_ms": timed(lambda: export([small, run], root / "report.html"), 2),
        "report_bytes": (root / "report.html").stat().st_size,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "face.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
