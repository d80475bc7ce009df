"""`jobs`: the runs of a folder at a glance, from what they themselves wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.runs import Run
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
    """One line of the board; a folder that cannot be read says so in its state."""
    try:
        recipe, progress, outcome = run.recipe, run.progress, run.outcome
    except (LabError, ValueError) as error:
        return {"run": run.id, "stage": "?", "state": f"unreadable: {error}".partition("\n")[0]}
    return {
        "run": run.id,
        "stage": recipe.stage,
        "state": str(run.state),
        "done": progress.get("done"),
        "total": progress.get("total"),
        "eta_seconds": progress.get("eta_seconds"),
        "seconds": round(outcome.seconds, 1),
        "loss": outcome.loss,
        "peak_gib": round(outcome.peak_gib, 2),
        "dollars": outcome.dollars,
    }


def jobs(root: Path | None = None) -> pd.DataFrame:
    """The board as a data frame: run, stage, state, done, total, eta_seconds, seconds, loss, peak_gib, dollars."""
    import pandas as pd

    return pd.DataFrame([row(run) for run in find_runs(root)])
