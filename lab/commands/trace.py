"""Have a working run record what its ranks do in the next steps, and show where the time went.

lab trace RUN                             the next 3 steps, then the operators that took longest
lab trace RUN --steps 10 --rank 3
lab trace RUN --show                      traces that are there, without a new one

The files, one a rank (ui.perfetto.dev opens them) and on CUDA a memory snapshot, are artefacts of the run.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from cluster import trace
from lab.show import console, table
from lablib.runs import Run
from lablib.runs.traces import Trace, traces
from lablib.specs import LabError

LOOK = 0.5
"""Seconds between looks at the run's folder."""


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run, or ssh://host/folder of a far one")
    command.add_argument("--steps", type=int, default=3, help="how many steps (default 3)")
    command.add_argument("--rank", type=int, default=0, help="whose operators to show (default 0)")
    command.add_argument("--show", action="store_true", help="show the traces that are there and ask for none")
    command.add_argument("--json", action="store_true", help="print as JSON, for scripts")


def run(args: argparse.Namespace) -> None:
    """Ask, wait until it is there, and show it."""
    traced = Run.open(args.run)
    found = traces(traced) if args.show else _new(traced, args.steps)
    chosen = [one for one in found if one.rank == args.rank]
    if not chosen:
        ranks = sorted({one.rank for one in found})
        raise LabError(
            f"rank={args.rank}: run {traced.id} has no trace of it; it has traces of ranks {ranks or 'none'}"
        )
    for one in chosen:
        print(json.dumps(asdict(one), default=str)) if args.json else _print(one)


def _new(traced: Run, steps: int) -> list[Trace]:
    known = len(traced.events())
    trace(traced, steps)
    while True:
        finished = traced.state.finished
        new = traced.events()[known:]
        names = {event["name"] for event in new if event["kind"] == "artefact"}  # a step traced before has its old name
        made = [one for one in traces(traced) if one.name in names]
        failed = [event for event in new if event["kind"] == "trace_failed"]
        if failed:
            raise LabError(f"run {traced.id} could not keep its trace: {failed[0]['reason']}")
        if made:
            return made
        if finished:
            raise LabError(f"run {traced.id} ended before its trace did; it is {traced.state}")
        time.sleep(LOOK)


def _print(one: Trace) -> None:
    rows = [
        [row["op"], f"{row['calls']:,}", f"{row['cpu_ms']:.2f}", f"{row['device_ms']:.2f}", f"{row[one.by] / one.total_ms:.1%}"]
        for row in one.ops
    ]  # fmt: skip
    console.print(table(["operator", "calls", "CPU ms", "device ms", "share"], rows, f"{one.name}, rank {one.rank}"))
    console.print(f"{one.file}", markup=False, highlight=False, soft_wrap=True)
    if one.memory:
        console.print(f"{one.memory}", markup=False, highlight=False, soft_wrap=True)
