"""The walk: measure → plan → submit the chain → watch it → tell what happened → report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lab.show import console, table
from lab.tour import story
from lab.tour.ledger import Ledger
from lab.tour.progress import follow
from lab.tour.recipes import Chain, Settings, options
from lablib.plan import calibrate, efficiency
from lablib.report import export
from lablib.runs import Run, RunState
from lablib.specs import Cluster, LabError, Pretrain
from lablib.specs.paths import home
from lablib.specs.units import show_dollars, show_seconds

FREE_GB = 3
"""Disk that a tour needs: caches 0.5 GB, runs 0.5 GB, room to save."""


def walk(settings: Settings, root: Path, price: float, fresh: bool) -> dict[str, Any]:
    """Take the tour in `root`; gives what is printed, as data. Raises `LabError` for what the user can mend."""
    _room(root)
    ledger = Ledger(root)
    if fresh:
        ledger.forget()
    cluster = _measured(price, fresh)
    chosen = _plan(settings, cluster)
    runs = _submit(ledger, settings, chosen)
    try:
        follow(runs)
    except KeyboardInterrupt:
        console.print("Saved. The same command continues from here.")
        raise SystemExit(130) from None
    return _tell(runs, root)


def _room(root: Path) -> None:
    for place in (root, home()):
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free / 1e9
        if free < FREE_GB:
            raise LabError(
                f"{place} has {free:.1f} GB free and the tour needs {FREE_GB}; free some, or set LAB_RUNS and LAB_HOME elsewhere"
            )


def _measured(price: float, fresh: bool) -> Cluster:
    try:
        known = Cluster.load("local")
    except LabError:
        known = None
    if known is None or fresh or known.price_per_gpu_hour != price:
        with console.status("1  Measuring this machine"):
            known = calibrate(price=price)
    rates = ", ".join(f"{value * 1000:.0f} GFLOP/s {name}" for name, value in known.accelerator.measured_tflops.items())
    console.print(
        f"[bold]This machine[/bold]  {known.accelerator.name}: {rates}, {known.accelerator.memory_gib:.0f} GiB"
    )
    if done := efficiency.of(known).calibration:
        console.print(f"              {done}")
    return known


def _plan(settings: Settings, cluster: Cluster) -> Pretrain:
    found = options(settings, cluster)
    budget = show_seconds(settings.pretrain_seconds)
    rows = [option.row() for option in found]
    console.print(
        table(
            ["parameters", "tokens", "time", "predicted loss"],
            rows,
            f"What {budget} of pretraining buys; the first is taken",
        )
    )
    return found[0].recipe


def _submit(ledger: Ledger, settings: Settings, chosen: Pretrain) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    last: Run | None = None
    for label, make in Chain(settings, chosen).steps():
        last, how = ledger.obtain(label, make(runs), last)
        runs[label] = last
        console.print(f"  {label:14} {how:10} {runs[label].id}", markup=False, highlight=False)
    console.print(f"The runs go on without this terminal; they live in {ledger.root}\n", markup=False, highlight=False)
    return runs


def _tell(runs: dict[str, Run], root: Path) -> dict[str, Any]:
    states = {label: run.state for label, run in runs.items()}
    completed = all(state is RunState.COMPLETED for state in states.values())
    console.print(story.plan_table(runs))
    for label, run in runs.items():
        if states[label] is not RunState.COMPLETED:
            console.print(f"{label} is {states[label]}: {run.failure}", markup=False, highlight=False)
    evaluations = {
        label: story.scores(run)
        for label, run in runs.items()
        if run.recipe.stage == "evaluate" and "scores" in run.artefacts
    }
    for scores in evaluations.values():
        console.print(story.evaluation_table(scores))
    report = export(list(runs.values()), root / "report.html", title="LLM Lab tour", question=story.QUESTION)
    total = sum(run.seconds for run in runs.values())
    spent = sum(run.outcome.dollars or 0.0 for run in runs.values())
    console.print(
        f"{show_seconds(total)} of work, {show_dollars(spent)}. Report: {report}", markup=False, highlight=False
    )
    console.print(
        "Not in the tour yet:\n" + "\n".join(f"  · {line}" for line in story.NOT_YET), markup=False, highlight=False
    )
    return {
        "completed": completed,
        "stages": {
            label: {"run": run.id, "path": str(run.path), "state": str(states[label])} for label, run in runs.items()
        },
        "comparison": story.comparison(runs),
        "evaluation": evaluations,
        "report": str(report),
    }
