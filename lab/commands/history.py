"""What finished runs were planned to take against what they took, and the planner's error by stage.

lab history                        the runs in ./runs (or $LAB_RUNS)
lab history --root runs/tour       the runs of one folder
lab history --json                 every run and the errors by stage, for scripts

A plan is registered before its run starts, so nothing here was fitted afterwards. "in band" counts the runs that ended
inside the plan's 80 % band.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.show import console, table
from lablib.explorers.history import Outturn, by_stage, history
from lablib.specs.paths import runs_root
from lablib.specs.units import show_count, show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--root", type=Path, default=None, help="folder of runs (default: ./runs or $LAB_RUNS)")
    command.add_argument("--json", action="store_true", help="print rows and errors as JSON")


def run(args: argparse.Namespace) -> None:
    """Collect and show."""
    rows = history(args.root)
    errors = by_stage(rows)
    if args.json:
        print(
            json.dumps(
                {"runs": [row.to_dict() for row in rows], "by_stage": [row._asdict() for row in errors]}, indent=1
            )
        )
        return
    if not rows:
        console.print(f"No completed runs with a plan in {args.root or runs_root()} yet; `lab tour` makes some.")
        return
    cells = [[row.run, row.ended, row.what, show(row.what, row.predicted), band(row), show(row.what, row.actual), f"{row.ape:.0f} %", where(row)] for row in rows]  # fmt: skip
    console.print(
        table(
            ["run", "ended (UTC)", "what", "predicted", "band", "actual", "error", ""], cells, "Predicted and measured"
        )
    )
    summary = [[row.stage, row.what, str(row.runs), f"{row.median_ape:.0f} %", f"{row.inside} of {row.banded}" if row.banded else ""] for row in errors]  # fmt: skip
    console.print(table(["stage", "what", "runs", "median error", "in band"], summary, "Errors by stage"))


def show(what: str, value: float) -> str:
    """A quantity as people read it."""
    if what == "seconds":
        return show_seconds(value)
    if what == "dollars":
        return show_dollars(value)
    return f"{value:.3g} GiB" if what == "memory" else f"{value:.3f}" if what == "loss" else show_count(value)


def band(row: Outturn) -> str:
    """The plan's band; empty where it gave one number."""
    return "" if row.inside is None else f"{show(row.what, row.low)} to {show(row.what, row.high)}"


def where(row: Outturn) -> str:
    """Where the outcome lies to the band, in words."""
    return {True: "in band", False: "outside", None: ""}[row.inside]
