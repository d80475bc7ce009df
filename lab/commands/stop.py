"""Ask a run to save and end; `lab resume RUN` continues it later."""

from __future__ import annotations

import argparse

from cluster import stop
from lab.show import console
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run")


def run(args: argparse.Namespace) -> None:
    """Stop the run's processes on this machine."""
    asked = stop(Run.open(args.run))
    console.print(
        f"Asked {asked} process{'es' if asked != 1 else ''} to save and end." if asked else "Nothing of it runs here."
    )
