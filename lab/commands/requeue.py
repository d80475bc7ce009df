"""Have a run save and begin again from its checkpoint, on other nodes perhaps; one that has ended is resumed."""

from __future__ import annotations

import argparse

from cluster import requeue
from lab.show import console
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run")


def run(args: argparse.Namespace) -> None:
    """Queue it again."""
    console.print(str(requeue(Run.open(args.run))), markup=False, highlight=False)
