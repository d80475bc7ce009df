"""Follow a run until it ends: one line a step, then how it ended. Ctrl-C only stops watching."""

from __future__ import annotations

import argparse
import json

from lab.show import console
from lablib.runs import Run, RunState
from lablib.specs.units import show_dollars, show_seconds

SHOWN = {
    "loss": "loss",
    "bits_per_byte": "bpb",
    "reward": "reward",
    "accuracy": "accuracy",
    "grad_norm": "grad_norm",
    "lr": "lr",
    "tokens_per_second": "tokens_per_second",
    "mfu": "mfu",
    "memory_gib": "GiB",
    "data_wait": "data_wait",
    "chinchilla": "chinchilla",
    "straggle": "straggle",
    "dollars": "dollars",
}
"""Metrics of a line, in its order, and what they are called there; one that was not measured is left out."""


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run, or ssh://host/folder of a far one")
    command.add_argument("--stream", default="train", help="metrics to follow: train (default) or eval")
    command.add_argument("--json", action="store_true", help="print each metric row as JSON, for scripts")


def run(args: argparse.Namespace) -> int:
    """Print rows as they come; gives 1 where the run did not complete."""
    watched = Run.open(args.run)
    for row in watched.follow(args.stream):
        print(json.dumps(row) if args.json else _line(row, watched), flush=True)
    state = watched.state
    if not args.json:
        console.print(repr(watched), markup=False, highlight=False)
        console.print(watched.failure, markup=False, highlight=False)
    return 0 if state is RunState.COMPLETED else 1


def _line(row: dict[str, object], run: Run) -> str:
    parts = [f"step {row['step']}"]
    for name, label in SHOWN.items():
        value = row.get(name)
        if isinstance(value, int | float):
            parts.append(f"{label} {show_dollars(value) if name == 'dollars' else f'{value:.4g}'}")
    eta = row.get("eta_seconds", run.progress.get("eta_seconds"))
    return "  ".join([*parts, f"eta {show_seconds(eta)}"] if isinstance(eta, int | float) and eta else parts)
