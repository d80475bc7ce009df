"""Write one self-contained HTML file about a chain of runs: plan, forecast, outcome, evaluation, provenance.

lab report RUN [RUN ...] --out report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lab.show import console
from lablib.report import export
from lablib.runs import Run


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("runs", nargs="+", metavar="RUN", help="ids or folders of runs, in the order of the chain")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="file to write (default report.html)")
    command.add_argument("--question", default="", help="what the runs were to find out; the report opens with it")


def run(args: argparse.Namespace) -> None:
    """Export and say where."""
    path = export([Run.open(name) for name in args.runs], args.out, question=args.question)
    console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB, opens without a network)")
