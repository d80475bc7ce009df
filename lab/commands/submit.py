"""Start a recipe as a process of its own and return at once.

  lab submit recipe.toml
  lab submit sft.toml --after pretrain-20260102-030405-ab12

The run goes on when this terminal closes; `lab watch RUN` attaches to it from anywhere.
"""

from __future__ import annotations

import argparse
import json

from cluster import submit
from lab.show import console
from lablib.runs import Run
from lablib.specs import load_recipe


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("recipe", help="a .toml or .json recipe")
    command.add_argument("--profile", default="local", help="where to run; only 'local' so far")
    command.add_argument("--after", action="append", default=[], metavar="RUN", help="wait for this run; may repeat")
    command.add_argument("--json", action="store_true", help="print the run's id and path as JSON")


def run(args: argparse.Namespace) -> None:
    """Submit and say how to re-attach."""
    made = submit(load_recipe(args.recipe), args.profile, after=[Run.open(name) for name in args.after])
    if args.json:
        print(json.dumps({"run": made.id, "path": str(made.path)}))
        return
    console.print(f"{made}\n  lab watch {made.id}", markup=False, highlight=False)
