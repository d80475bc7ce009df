"""`jobs`: the runs of a folder at a glance, from what they themselves wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.runs import Run, RunState, jsonl
from lablib.runs.orders import View
from lablib.specs import LabError
from lablib.specs.paths import runs_root

if TYPE_CHECKING:
    import pandas as pd


def find_runs(root: Path | None = None) -> list[Run]:
    """Every run below `root`, oldest first; a chain's own folder counts too."""
    base = root or runs_root()
    folders = [file.parent for file in [*base.glob("*/recipe.json"), *base.glob("*/*/recipe.json")]]
    return sorted(
        (Run(folder.absolute()) for folder in folders), key=lambda run: (run.path / "recipe.json").stat().st_mtime
    )


def row(run: Run) -> dict[str, Any]:
    """One line of the board; a folder that cannot be read says so in its state.

    It reads the ends of files, never a whole metrics file, so that hundreds of long runs list at once.
    """
    try:
        return _row(run)
    except (LabError, ValueError, LookupError, TypeError, OSError) as error:
        return {"run": run.id, "stage": "?", "state": f"unreadable: {error or type(error).__name__}".partition("\n")[0]}


def _row(run: Run) -> dict[str, Any]:
    recipe, progress, seconds, view = run.recipe, run.progress, run.seconds, run.view
    losses = [one["loss"] for one in jsonl.last(run.path / "metrics" / "train.jsonl") if one.get("loss") is not None]
    state, price = run.state, run.order.profile.price_per_gpu_hour
    if price is None and run.cluster is not None:
        price = run.cluster.price_per_gpu_hour
    return {
        "run": run.id,
        "stage": recipe.stage,
        "state": str(state),
        "why": run.failure.partition("\n")[0]
        if state in (RunState.FAILED, RunState.LOST)
        else _why_it_waits(run, view),
        "done": progress.get("done"),
        "total": progress.get("total"),
        "eta_seconds": None if state.finished else progress.get("eta_seconds"),
        "seconds": round(seconds, 1),
        "planned_seconds": _planned(run, "days", 86400),
        "loss": sum(losses[-10:]) / len(losses[-10:]) if losses else None,
        "peak_gib": round(max((pulse.peak_gib for pulse in run.pulses), default=0.0), 2),
        "dollars": None if price is None else seconds / 3600 * run.order.gpus(recipe.gpus) * price,
        "planned_dollars": _planned(run, "dollars"),
        "last_event": _last_event(run),
    }


def _why_it_waits(run: Run, view: View | None) -> str:
    """Slurm's reason and expected start while it is pending; the runs that it waits for on this machine."""
    if view is not None and view.pending:
        return view.reason + (f", expected to start {view.start}" if view.start else "")
    if run.state is RunState.WAITING:
        return f"waits for {', '.join(run.order.after)}"
    return ""


def _planned(run: Run, what: str, unit: float = 1.0) -> float | None:
    """The middle of a range of the registered estimate."""
    found = (run.estimate or {}).get(what)
    return None if found is None else round(found["mid"] * unit, 4)


def _last_event(run: Run) -> str:
    """What happened last, and when by this machine's clock."""
    events = jsonl.last(run.path / "events.jsonl")
    return f"{events[-1]['kind']} {time.strftime('%m-%d %H:%M', time.localtime(events[-1]['time']))}" if events else ""


def jobs(root: Path | None = None) -> pd.DataFrame:
    """The board as a data frame: run, stage, state, why, done, total, eta_seconds, seconds beside planned_seconds,
    loss, peak_gib, dollars beside planned_dollars, last_event."""
    import pandas as pd

    return pd.DataFrame([row(run) for run in find_runs(root)])
