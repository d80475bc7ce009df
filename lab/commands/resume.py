"""Continue a stopped, lost or failed run from its last checkpoint, in its own folder."""

from __future__ import annotations

import argparse

from cluster import resume
from lab.show import console
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run")


def run(args: argparse.Namespace) -> None:
    """Start it again."""
    again = resume(Run.open(args.run))
    console.print(f"{again}\n  lab watch {again.id}", markup=False, highlight=False)
