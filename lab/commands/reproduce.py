"""Run again what a report says was run, and compare the results with those in the report.

lab reproduce report.html                 all stages, on this machine
lab reproduce report.html --verify-only   only check that the report is as it was written
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cluster import submit
from lab.show import console, table
from lablib.report import reproduce, verify
from lablib.runs import Run
from lablib.specs import Recipe
from lablib.specs.paths import runs_root


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("report", type=Path, help="a report that `lab report` or `lab tour` wrote")
    command.add_argument("--stages", nargs="*", default=None, help="only these stages (and what they need)")
    command.add_argument("--verify-only", action="store_true", help="check the report's own hash and stop")
    command.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify, re-run, compare; gives 1 where a result differs."""
    verify(args.report)
    if args.verify_only:
        console.print("The report is as it was written.")
        return 0
    root = runs_root() / "reproduce"

    def executor(recipe: Recipe, after: list[Run]) -> Run:
        run = submit(recipe, after=after, root=root)
        run.wait()
        return run

    rows = reproduce(args.report, executor, stages=args.stages)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        console.print(
            table(
                ["stage", "figure", "reported", "now", "same"],
                [[str(row[key]) for key in ("stage", "figure", "reported", "now", "same")] for row in rows],
            )
        )
    return 0 if all(row["same"] for row in rows) else 1
