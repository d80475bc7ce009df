"""Start a recipe on this machine or as a Slurm job, and return at once.

  lab submit recipe.toml
  lab submit recipe.toml --profile slurm-h100 --max-dollars 500
  lab submit recipe.toml --profile slurm-h100 --test-only            when would it start?
  lab submit recipe.toml --vary optimizer.lr=1e-3,3e-3 --vary seed=0,1 --at-once 2
  lab submit sft.toml --after pretrain-20260102-030405-ab12

The run goes on when this terminal closes; `lab watch RUN` attaches to it from anywhere. Several variants are one array on
Slurm. A profile with `ssh` is submitted to from here, through one connection that is opened once.
"""

from __future__ import annotations

import argparse
import json

from cluster import submit_all
from cluster.slurm import sbatch
from lab.show import amount, console
from lablib.plan import estimate
from lablib.runs import Run
from lablib.specs import AnyRecipe, LabError, Profile, load_recipe, variants
from lablib.specs.units import parse_dollars


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("recipe", help="a .toml or .json recipe")
    command.add_argument("--profile", default="local", help="where to run (`lab cluster list`)")
    command.add_argument(
        "--max-dollars", metavar="$", help="save and stop when this much is spent; each run, with --vary"
    )
    command.add_argument(
        "--max-gpu-hours", type=float, metavar="HOURS", help="save and stop after so many; each run, with --vary"
    )
    command.add_argument("--after", action="append", default=[], metavar="RUN", help="wait for this run; may repeat")
    command.add_argument(
        "--vary", action="append", default=[], metavar="FIELD=A,B", help="a run for each value; may repeat"
    )
    command.add_argument(
        "--at-once", type=int, default=0, metavar="N", help="at most N variants at a time (default: all)"
    )
    command.add_argument("--report", action="store_true", help="have the job write a report of its whole chain")
    command.add_argument("--test-only", action="store_true", help="say when Slurm would start it; queue nothing")
    command.add_argument("--json", action="store_true", help="print ids and paths as JSON")


def run(args: argparse.Namespace) -> None:
    """Submit and say how to re-attach."""
    profile, recipe = Profile.load(args.profile), load_recipe(args.recipe)
    recipes = variants(recipe, dict(map(_values, args.vary)))
    if args.test_only:
        _foretell(recipe, profile, args.json)
        return
    dollars = amount("--max-dollars", args.max_dollars, parse_dollars)
    limits = {"max_dollars": dollars, "max_gpu_hours": args.max_gpu_hours}
    after = [Run.open(name) for name in args.after]
    with console.status("pricing, fetching what the nodes will need, queueing"):
        made = submit_all(recipes, profile, after, at_once=args.at_once, report=args.report, **limits)
    if args.json:
        told = [{"run": one.address, "path": str(one.path)} for one in made]
        print(json.dumps(told if args.vary else told[0]))
        return
    for one in made:
        console.print(f"{one}\n  lab watch {one.address}", markup=False, highlight=False)


def _values(text: str) -> tuple[str, list[object]]:
    """``seed=0,1`` as a field and its values, read as JSON where they are that."""
    field, equals, values = text.partition("=")
    if not equals or not values:
        raise LabError(f"--vary {text!r}: write FIELD=VALUE,VALUE, for example seed=0,1,2")
    return field, [_value(word) for word in values.split(",")]


def _value(word: str) -> object:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _foretell(recipe: AnyRecipe, profile: Profile, as_json: bool) -> None:
    if profile.scheduler != "slurm" or profile.ssh:
        raise LabError(f"--test-only asks Slurm on this machine; profile {profile.name} is not submitted to from here")
    start = sbatch.expected_start(recipe, profile)
    if as_json:
        print(json.dumps({"expected_start": start}))
        return
    console.print(f"{profile.name} would start it at {start}", markup=False, highlight=False)
    if profile.accelerator is not None:
        console.print(str(estimate(recipe, profile.cluster())), markup=False, highlight=False)
