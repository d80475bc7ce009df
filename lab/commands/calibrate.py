"""Measure this machine, so that plans for it are honest (some seconds).

Measures matmul rates, memory bandwidth and a short probe of real training steps, and keeps the result as the
cluster called "local". Run it again after the machine has changed.
"""

from __future__ import annotations

import argparse

from lab.show import console, emit
from lablib.plan import calibrate


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--price", default=None, help='dollars an hour that this machine costs you, e.g. "$0.10"')
    command.add_argument("--json", action="store_true", help="print the measured cluster as JSON")


def run(args: argparse.Namespace) -> None:
    """Measure, store and show."""
    with console.status("measuring matmuls, memory and a few training steps"):
        cluster = calibrate(price=args.price)
    emit(args.json, cluster.to_json(), cluster.summary())
