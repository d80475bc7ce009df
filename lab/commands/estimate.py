"""What a recipe takes: FLOPs, memory per GPU, step time, hours and dollars, before anything runs.

lab estimate recipe.toml                               on this machine (as `lab calibrate` measured it)
lab estimate recipe.toml --gpus 64 --accelerator h100-sxm
lab estimate recipe.toml --explain                     every number with its formula, inputs and source
"""

from __future__ import annotations

import argparse

from lab.show import console, emit, target
from lablib.plan import estimate
from lablib.specs import load_recipe


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("recipe", help="a .toml or .json recipe")
    command.add_argument("--accelerator", help="name in the catalogue, e.g. h100-sxm; default: this machine")
    command.add_argument("--gpus", type=int, help="accelerators in all; default: as many as the recipe lays out")
    command.add_argument("--explain", action="store_true", help="show each number's formula, inputs and source")
    command.add_argument("--json", action="store_true", help="print the whole estimate as JSON")


def run(args: argparse.Namespace) -> None:
    """Estimate and show."""
    recipe = load_recipe(args.recipe)
    plan = estimate(recipe, target(args.accelerator, args.gpus or recipe.gpus))
    if args.explain and not args.json:
        console.print(plan.explain(), markup=False, highlight=False)
        return
    emit(args.json, plan.to_json(), str(plan))
