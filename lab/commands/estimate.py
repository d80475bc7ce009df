"""What recipes take: FLOPs, memory per GPU, step time, hours and dollars, before anything runs.

lab estimate recipe.toml                               on this machine (as `lab calibrate` measured it)
lab estimate recipe.toml --gpus 64 --accelerator h100-sxm
lab estimate recipe.toml --profile slurm-h100          on the cluster of a profile, at its price
lab estimate recipe.toml --explain                     every number with its formula, inputs and source
lab estimate pretrain.toml sft.toml dpo.toml --accelerator h100-sxm      a chain, and each stage's share of it
lab estimate recipe.toml --accelerator h100-sxm --providers              at every provider's price, cheapest first
lab estimate recipe.toml --accelerator h100-sxm --contexts               what longer sequences cost
lab estimate recipe.toml --accelerator h100-sxm --grids                  what its electricity emits, country by country
lab estimate recipe.toml --laws                        its learning rate, batch and weight decay beside published laws
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from lab.show import console, emit, table, target
from lablib.plan import Estimate, estimate
from lablib.plan.chain import ChainEstimate
from lablib.specs import AnyRecipe, Cluster, LabError, Pretrain, load_recipe
from lablib.specs.units import show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument(
        "recipes", nargs="+", metavar="recipe", help="a .toml or .json recipe; several are a chain, in order"
    )
    command.add_argument("--accelerator", help="name in the catalogue, e.g. h100-sxm; default: this machine")
    command.add_argument("--profile", help="the profile that it would be submitted to (`lab cluster list`)")
    command.add_argument("--gpus", type=int, help="accelerators in all; default: as many as the recipes lay out")
    command.add_argument("--explain", action="store_true", help="show each number's formula, inputs and source")
    command.add_argument(
        "--providers", action="store_true", help="price one recipe at every provider that lists the accelerator"
    )
    command.add_argument(
        "--contexts", action="store_true", help="price the same tokens in sequences of 8K, 32K and 128K"
    )
    command.add_argument("--grids", action="store_true", help="carbon on each listed country's grid, cleanest first")
    command.add_argument("--laws", action="store_true", help="published laws of learning rate, batch and weight decay")
    command.add_argument("--json", action="store_true", help="print the whole estimate as JSON")


def run(args: argparse.Namespace) -> None:
    """Estimate and show."""
    recipes = [load_recipe(path) for path in args.recipes]
    if args.laws:
        _laws(recipes, args.json)
        return
    cluster = _cluster(args, max(recipe.gpus for recipe in recipes))
    if args.providers:
        _providers(recipes, cluster, args.json)
        return
    if args.contexts:
        _contexts(recipes, cluster, args.json)
        return
    plan = estimate(recipes[0] if len(recipes) == 1 else recipes, cluster)
    if args.explain and not args.json:
        console.print(plan.explain(), markup=False, highlight=False)
        return
    if args.grids:
        _grids(plan, args.json)
        return
    emit(args.json, plan.to_json(), str(plan))


def _laws(recipes: Sequence[AnyRecipe], as_json: bool) -> None:
    from lablib.plan import scaling

    (recipe,) = recipes if len(recipes) == 1 else (None,)
    if type(recipe) is not Pretrain:
        raise LabError("--laws compares the settings of one pretrain recipe, from scratch; give that one")
    said, better = scaling.advice(recipe), scaling.suggested(recipe)
    if as_json:
        rows = [{**one.model_dump(mode="json"), "ratio": one.ratio} for one in said]
        print(json.dumps({"laws": rows, "suggested": json.loads(better.to_json())}, indent=1, ensure_ascii=False))
        return
    columns = ["", "law", "says", "recipe", "recipe / law", "beyond what it was fitted on"]
    console.print(table(columns, scaling.table(said), words=("law", columns[-1])))
    console.print(scaling.words(recipe), markup=False, highlight=False)


def _cluster(args: argparse.Namespace, gpus: int) -> Cluster:
    if args.profile and (args.accelerator or args.gpus is not None):
        raise LabError(
            f"--profile {args.profile} says which accelerators and how many; leave out --accelerator and --gpus"
        )
    return (
        Cluster.load(args.profile)
        if args.profile
        else target(args.accelerator, gpus if args.gpus is None else args.gpus)
    )


def _providers(recipes: Sequence[AnyRecipe], cluster: Cluster, as_json: bool) -> None:
    from lablib.plan import market

    if len(recipes) != 1:
        raise LabError(f"--providers prices one recipe, not {len(recipes)}; give the stages one by one")
    rows = market.offers(recipes[0], cluster)
    emit(as_json, json.dumps([row.model_dump(mode="json") for row in rows], indent=1), market.text(rows))


def _contexts(recipes: Sequence[AnyRecipe], cluster: Cluster, as_json: bool) -> None:
    from lablib.plan import market

    (recipe,) = recipes if len(recipes) == 1 else (None,)
    if not isinstance(recipe, Pretrain):
        raise LabError("--contexts prices one pretrain recipe in longer sequences; give that one")
    made = market.contexts(recipe, cluster)
    first = made[0].plan.gpu_hours.mid
    if as_json:
        said = [{"seq_len": one.seq_len, "recipe": json.loads(one.recipe.to_json()), "estimate": json.loads(one.plan.to_json())} for one in made]  # fmt: skip
        print(json.dumps(said, indent=1))
        return
    rows = [
        [f"{one.seq_len:,}", str(one.cp), one.recipe.recompute, f"{one.plan.memory.peak_gib:.1f}{'' if one.plan.fits else ' (does not fit)'}",
         show_seconds(one.plan.days.mid * 86400), show_dollars(one.plan.dollars.mid) if one.plan.dollars else "", f"×{one.plan.gpu_hours.mid / first:.2f}"]
        for one in made
    ]  # fmt: skip
    console.print(table(["sequence", "cp", "recompute", "GiB", "time", "money", "GPU-hours"], rows))


def _grids(plan: Estimate | ChainEstimate, as_json: bool) -> None:
    from lablib.plan import market

    if isinstance(plan, ChainEstimate) or plan.energy_kwh is None:
        raise LabError("--grids takes one recipe, on an accelerator whose rated power is known")
    found = market.co2(plan)
    if as_json:
        print(json.dumps({grid: value.model_dump() for grid, value in found.items()}, indent=1))
        return
    rows = [[grid, f"{value.mid:,.3g}", f"{value.low:,.3g} to {value.high:,.3g}"] for grid, value in found.items()]
    console.print(table(["grid", "kg CO₂e", "80 % band"], rows))
