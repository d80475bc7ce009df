"""From a budget to what it can train: sizes, tokens, layouts, days, dollars and predicted loss.

lab plan --budget '$50k' --accelerator h100-sxm --nodes 16
lab plan --budget '$2M' --days 30 --accelerator b200-sxm --nodes 64 --seq-len 8192
lab plan --gpu-hours 20000 --accelerator a100-sxm --nodes 8 --save recipe.toml      the least loss as a recipe

Shown are the plans that no other beats in loss, cost, days and size (what serving costs) at once. Money and time are the
middle of their bands; `lab estimate` on the saved recipe shows the bands. Loss follows a published law for other data, so
only its differences say something.
"""

from __future__ import annotations

import argparse
import json
from typing import get_args

from lab.show import cluster_arguments, cluster_of, console, machines, table
from lablib.plan.laws import EPOCH, HOFFMANN
from lablib.plan.reverse import DATA, plan_for
from lablib.specs.recipe import Precision

LAWS = {"epoch": EPOCH, "hoffmann": HOFFMANN}


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--budget", help="dollars, e.g. '$50k' or '$1.2M'")
    command.add_argument("--days", help="wall time from start to end, e.g. 30 or '2 weeks'")
    command.add_argument("--gpu-hours", type=float, help="accelerator-hours that you have")
    cluster_arguments(command, nodes=16)
    command.add_argument(
        "--models", nargs="+", help="catalogue models to choose among (default: 26 sizes from 100M to 400B)"
    )
    command.add_argument("--seq-len", default="4096", help="tokens of a sequence (default 4096)")
    command.add_argument("--precision", default="bf16", choices=get_args(Precision), help="of matmuls (default bf16)")
    command.add_argument(
        "--max-tokens", default=DATA, help=f"unique tokens that there are to train on (default {DATA})"
    )
    command.add_argument("--law", default="epoch", choices=LAWS, help="which law predicts the loss (default epoch)")
    command.add_argument("--top", type=int, default=15, help="rows to show (default 15)")
    command.add_argument("--save", metavar="FILE", help="write the plan of least loss as a recipe (.toml or .json)")
    command.add_argument("--json", action="store_true", help="print every plan with its recipe as JSON")


def run(args: argparse.Namespace) -> None:
    """Plan and show."""
    found = plan_for(args.budget, cluster=cluster_of(args), gpu_hours=args.gpu_hours, days=args.days, seq_len=args.seq_len,
                     precision=args.precision, law=LAWS[args.law], sizes=args.models, max_tokens=args.max_tokens)  # fmt: skip
    if args.save:
        found.best.recipe.save(args.save)
    if args.json:
        print(json.dumps(found.model_dump(mode="json"), indent=1))
        return
    columns, rows = found.table(args.top)
    console.print(table(columns, rows, found.title, words=("layout",)))
    console.print(f"Loss by {found.basis}; * beyond the sizes or data it was fitted on.", markup=False, highlight=False)
    if args.save:
        console.print(
            f"saved the least loss: lab estimate {args.save} {machines(args)}",
            markup=False,
            highlight=False,
        )
