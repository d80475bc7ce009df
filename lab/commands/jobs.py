"""The runs in ./runs (or $LAB_RUNS) with state, progress, ETA, time against plan, loss, money, and why one waits."""

from __future__ import annotations

import argparse
import json

from cluster.board import find_runs, row
from lab.show import console, table
from lablib.runs import GLYPHS
from lablib.specs.paths import runs_root
from lablib.specs.units import show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> None:
    """Show the board."""
    rows = [row(run) for run in find_runs()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        console.print(f"No runs in {runs_root()} yet; `lab tour` makes some.")
        return
    console.print(
        table(
            ["run", "state", "done", "eta", "time / plan", "loss", "money / plan", "last", "why"],
            [_cells(item) for item in rows],
        )
    )


def _cells(item: dict[str, object]) -> list[str]:
    done, total, eta, loss, dollars = (item.get(key) for key in ("done", "total", "eta_seconds", "loss", "dollars"))
    return [
        str(item["run"]),
        f"{GLYPHS.get(str(item['state']), '?')} {item['state']}",
        f"{done}/{total}" if total else "",
        show_seconds(eta) if isinstance(eta, float) else "",
        _against_the_plan(item),
        f"{loss:.3f}" if isinstance(loss, float) else "",
        _money(dollars, item.get("planned_dollars")),
        str(item.get("last_event") or ""),
        str(item.get("why") or ""),
    ]


def _money(spent: object, planned: object) -> str:
    if not isinstance(spent, float):
        return ""
    return f"{show_dollars(spent)} / {show_dollars(planned)}" if isinstance(planned, float) else show_dollars(spent)


def _against_the_plan(item: dict[str, object]) -> str:
    planned = item.get("planned_seconds")
    spent = show_seconds(float(str(item.get("seconds", 0))))
    return f"{spent} / {show_seconds(planned)}" if isinstance(planned, float) else spent
