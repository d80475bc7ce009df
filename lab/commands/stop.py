"""Ask a run to save and end; `lab resume RUN` continues it later."""

from __future__ import annotations

import argparse

from cluster import stop
from lab.show import console
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run, or ssh://host/folder of a far one")
    command.add_argument("--now", action="store_true", help="end it without saving: back to its last checkpoint")


def run(args: argparse.Namespace) -> None:
    """Stop the run, or take it out of the queue."""
    found = Run.open(args.run)
    asked = stop(found, args.now)
    if found.held_by and found.held_by.system == "slurm" and asked:
        console.print(f"Slurm was told to {'end' if args.now else 'have it save and end'}; it is {found.state}.")
        return
    verb = "Ended" if args.now else "Asked"
    rest = "." if args.now else " to save and end."
    console.print(f"{verb} {asked} process{'es' if asked != 1 else ''}{rest}" if asked else "Nothing of it runs here.")
