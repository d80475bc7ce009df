"""The best learning rate for a large model from narrow ones, under μP (arXiv 2203.03466).

  lab mup target.toml --widths 256,512 --plan                       the proxies and what they cost beside the target
  lab mup target.toml --widths 256,512 --profile slurm-h100 --out tuned.toml
  lab mup target.toml --widths 128,256 --low 5e-4 --high 3e-2 --rates 7 --seeds 2 --json

Each width is trained at each rate on the target's batch, schedule and data; on Slurm all of them are one array. A parabola
over the logarithm of the rate gives each width's best one with a 95 % interval: under μP they agree, which a second width puts
to the test. `--out` writes the target at the widest's best rate, with `mup` filled in. Unless they are given, there are seven
rates, each twice the one before, about what published laws say of the narrowest, and 20 tokens a parameter of the widest.
After Ctrl-C, call it again: runs that are there and read the same data are taken up, not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType

from cluster.tuning import tune
from lab.show import amount, console, table
from lablib.plan.tuning import RATES, Cost, RateSearch, cost, proxies, rates_about
from lablib.specs import LabError, Pretrain, Profile, load_recipe
from lablib.specs.units import parse_count
from lablib.train.able import check


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("recipe", help="the target: a pretrain recipe (.toml or .json)")
    command.add_argument(
        "--widths", required=True, metavar="A,B", help="hidden widths of the proxies; the narrowest is tuned on"
    )
    command.add_argument("--low", type=float, metavar="RATE", help="lowest learning rate; with --high")
    command.add_argument("--high", type=float, metavar="RATE", help="highest learning rate; with --low")
    command.add_argument("--rates", type=int, default=RATES, metavar="N", help=f"how many rates (default {RATES})")
    command.add_argument("--tokens", metavar="N", help="what each proxy reads (default: 20 a parameter of the widest)")
    command.add_argument("--layers", type=int, metavar="N", help="layers of the proxies (default: the target's)")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of each rate (default 1)")
    command.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="data-parallel ranks of each proxy (default 1)"
    )
    command.add_argument("--profile", default="local", help="where to run (`lab cluster list`)")
    command.add_argument("--at-once", type=int, default=0, metavar="N", help="at most N runs at a time (default: all)")
    command.add_argument("--root", type=Path, default=None, help="folder of runs (default: ./runs or $LAB_RUNS)")
    command.add_argument("--plan", action="store_true", help="show the proxies and their cost; start nothing")
    command.add_argument("--out", type=Path, metavar="FILE", help="where to write the tuned target (.toml or .json)")
    command.add_argument("--json", action="store_true", help="print cost and search as JSON")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Price, search and show."""
    target = load_recipe(args.recipe)
    if not isinstance(target, Pretrain):
        raise LabError(f"{args.recipe} is a {target.stage} recipe; a learning rate is searched for a pretrain recipe")
    widths, tokens = _widths(args.widths), amount("--tokens", args.tokens, parse_count)
    settings = {"layers": args.layers, "seeds": args.seeds, "gpus": args.gpus}
    settings["tokens"] = None if tokens is None else int(tokens)
    rates = _rates(args, target, min(widths))
    made = proxies(target, widths, rates, **settings)
    check(made[0])
    price = cost(made, target, Profile.load(args.profile).cluster())
    if not args.json:
        console.print(_planned(made, price))
    found = None
    if not args.plan:
        with console.status("proxies") as status:
            found = tune(
                target, widths, rates, args.profile, args.root, at_once=args.at_once,
                tell=lambda words: status.update(f"{words} (Ctrl-C leaves them running)"), **settings,
            )  # fmt: skip
    if args.json:
        print(json.dumps(_document(made, price, found), indent=2))
    elif found:
        console.print(shown(found))
    if found and args.out:
        found.filled(target).save(args.out)
        if not args.json:
            console.print(f"{args.out}: lab submit {args.out}", markup=False, highlight=False)


def _widths(text: str) -> list[int]:
    try:
        return [parse_count(word) for word in text.split(",")]
    except ValueError:
        raise LabError(f"--widths {text!r}: write whole numbers, for example 256,512") from None


def _rates(args: argparse.Namespace, target: Pretrain, width: int) -> list[float]:
    if args.rates < 3:
        raise LabError(f"--rates {args.rates}: a parabola takes at least 3")
    if (args.low is None) != (args.high is None):
        raise LabError("--low and --high go together; give both, or neither")
    if args.low is None:
        return rates_about(target, width, args.layers, args.rates)
    if not 0 < args.low < args.high < float("inf"):
        raise LabError(f"--low {args.low} must be above 0 and below --high {args.high}, which is finite")
    return [float(f"{rate:.3g}") for rate in np.geomspace(args.low, args.high, args.rates)]


def _document(made: list[Pretrain], price: Cost, found: RateSearch | None) -> dict[str, object]:
    each = [{"name": one.name, "hidden": one.model.hidden, "learning_rate": one.optimizer.learning_rate, "seed": one.seed} for one in made]  # fmt: skip
    shares = {"share": price.share, "share_of_hours": price.share_of_hours}
    search = found and {
        **found.model_dump(mode="json"),
        "rate": found.rate,
        "drift": found.drift,
        "verdict": found.verdict,
    }
    return {"proxies": each, "cost": {**price.model_dump(mode="json"), **shares}, "search": search}


def _planned(made: list[Pretrain], price: Cost) -> RenderableType:
    first, rates = made[0], sorted({one.optimizer.learning_rate for one in made})
    widths = ", ".join(str(width) for width in sorted({one.model.hidden for one in made}))
    said = f"Widths {widths}; rates {', '.join(f'{rate:.2g}' for rate in rates)}; {first.steps:,} steps of {first.step_tokens:,} tokens."
    return Group(said, f"Cost: {price}.")


def shown(found: RateSearch) -> RenderableType:
    """Losses by rate and width, each width's best rate, and the verdict."""
    widths = [one.width for one in found.valleys]
    rows = [[f"{rate:.2g}", *(_mean(found, width, rate) for width in widths)] for rate in sorted({rate for _, rate, _ in found.trials})]  # fmt: skip
    best = [[str(one.width), f"{one.rate:.3g}", "–" if one.low is None else f"{one.low:.2g} to {one.high:.2g}", one.edge] for one in found.valleys]  # fmt: skip
    return Group(
        table(["rate", *map(str, widths)], rows, "Held-out loss (nats a token) by width, mean over seeds"),
        table(["width", "best rate", "95 %", "note"], best, "Parabola through the best rate and its neighbours", words=["note"]),
        found.verdict,
    )  # fmt: skip


def _mean(found: RateSearch, width: int, rate: float) -> str:
    losses = [loss for at, tried, loss in found.trials if (at, tried) == (width, rate)]
    kept = [loss for loss in losses if loss is not None]
    return f"{np.mean(kept):.4f}" if len(kept) == len(losses) else "diverged"
