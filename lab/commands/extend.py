"""Change what a run may spend, or how long one job of it may take; it learns of it within seconds.

lab extend RUN --max-dollars 800
lab extend RUN --time "12 hours"
"""

from __future__ import annotations

import argparse

from cluster import extend
from lab.show import console
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run, or ssh://host/folder of a far one")
    command.add_argument("--max-dollars", metavar="$", help="save and stop when this much is spent")
    command.add_argument("--max-gpu-hours", type=float, metavar="HOURS", help="save and stop after so many")
    command.add_argument("--time", help="longest that one job may take, e.g. '12 hours'")


def run(args: argparse.Namespace) -> None:
    """Write the new limits."""
    found = extend(Run.open(args.run), args.max_dollars, args.max_gpu_hours, args.time)
    console.print(f"Extended.\n{found}", markup=False, highlight=False)
