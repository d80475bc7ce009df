"""The last lines that a rank of a run printed.

lab logs RUN
lab logs RUN --rank 3 --lines 200
lab logs RUN --follow                     until the run ends; Ctrl-C only stops watching
"""

from __future__ import annotations

import argparse
import time

from cluster.control import log_file, tail
from lablib.runs import Run

LOOK = 0.5
"""Seconds between looks at a log."""


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a run, or ssh://host/folder of a far one")
    command.add_argument("--rank", type=int, default=0, help="which process (default 0)")
    command.add_argument("--lines", type=int, default=40, help="how many (default 40)")
    command.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")


def run(args: argparse.Namespace) -> None:
    """Print, and follow if asked."""
    shown = Run.open(args.run)
    print(tail(shown, args.rank, args.lines), flush=True)
    if not args.follow:
        return
    with log_file(shown, args.rank).open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while True:
            finished = shown.state.finished  # asked first: what is written before the end is still printed
            print(file.read(), end="", flush=True)
            if finished:
                return
            time.sleep(LOOK)
