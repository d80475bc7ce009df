"""Start a recipe on this machine or as a Slurm job, and return at once.

  lab submit recipe.toml
  lab submit recipe.toml --profile slurm-h100 --max-dollars 500
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
    command.add_argument("--profile", default="local", help="where to run (`lab cluster list`)")
    command.add_argument("--max-dollars", metavar="$", help="save and stop when this much is spent")
    command.add_argument("--max-gpu-hours", type=float, metavar="HOURS", help="save and stop after so many")
    command.add_argument("--after", action="append", default=[], metavar="RUN", help="wait for this run; may repeat")
    command.add_argument("--json", action="store_true", help="print the run's id and path as JSON")


def run(args: argparse.Namespace) -> None:
    """Submit and say how to re-attach."""
    after = [Run.open(name) for name in args.after]
    made = submit(
        load_recipe(args.recipe), args.profile, after, max_dollars=args.max_dollars, max_gpu_hours=args.max_gpu_hours
    )
    if args.json:
        print(json.dumps({"run": made.id, "path": str(made.path)}))
        return
    console.print(f"{made}\n  lab watch {made.id}", markup=False, highlight=False)
