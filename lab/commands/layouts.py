"""Every way to lay a model's training over a cluster, fastest first, with the reason why the others lose.

lab layouts llama-3-70b --accelerator h100-sxm --nodes 8
lab layouts qwen3-30b-a3b --accelerator b200-sxm --nodes 8 --precision bf16 fp8 --seq-len 8192
lab layouts llama-3-8b --accelerator h100-sxm --nodes 2 --save recipe.toml     the fastest as a recipe for `lab submit`

Searched are replicas × shards (FSDP) × tensor × pipeline × context parallelism, expert parallelism, micro-batches,
interleaving, precision and recomputation. The guide's rule of thumb for the model's size stands below the table.
"""

from __future__ import annotations

import argparse
from typing import get_args

from lab.show import cluster_arguments, cluster_of, console, machines, table
from lablib.plan.search import find_layouts
from lablib.specs import ModelSpec, catalog
from lablib.specs.recipe import CrossEntropy, Precision, Recompute


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("model", help="a name in the catalogue, or a folder or config.json of transformers")
    cluster_arguments(command, nodes=1)
    command.add_argument(
        "--gpus", type=int, nargs="+", help="fewer accelerators than the cluster has, or several to compare"
    )
    command.add_argument("--batch-tokens", default="4M", help="tokens of a step over all ranks (default 4M)")
    command.add_argument("--seq-len", default="8192", help="tokens of a sequence (default 8192)")
    command.add_argument("--precision", nargs="+", default=["bf16"], choices=get_args(Precision), help="one or several")
    command.add_argument(
        "--recompute",
        nargs="+",
        default=["none", "selective", "full"],
        choices=get_args(Recompute),
        help="policies to try",
    )
    command.add_argument(
        "--zero", type=int, nargs="+", default=[3], choices=[1, 2, 3], help="ZeRO stages to try (default 3)"
    )
    command.add_argument(
        "--cross-entropy", default="full", choices=get_args(CrossEntropy), help="how the loss is computed"
    )
    command.add_argument("--top", type=int, default=20, help="rows to show (default 20)")
    command.add_argument("--save", metavar="FILE", help="write the fastest layout as a recipe (.toml or .json)")
    command.add_argument("--tokens", default=None, help="tokens of the saved recipe (default: 20 a parameter)")
    command.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Search and show. Gives 1 where no layout can run."""
    model = catalog.models[args.model] if args.model in catalog.models else ModelSpec.from_hf(args.model)
    found = find_layouts(model, cluster_of(args), args.batch_tokens, args.seq_len, precision=args.precision, recompute=args.recompute,
                           zero=args.zero, gpus=args.gpus, cross_entropy=args.cross_entropy, top=args.top)  # fmt: skip
    if args.save:
        found.best.recipe(tokens=args.tokens, name=args.model.split("/")[-1].replace(".", "-")).save(args.save)
    if args.json:
        print(found.to_json())
        return 0 if found.fitting else 1
    columns, rows = found.table()
    console.print(table(columns, rows, found.title, words=("layout", "reason")))
    console.print(found.rule_words, markup=False, highlight=False)
    if args.save:
        console.print(
            f"saved the fastest: lab estimate {args.save} {machines(args)}",
            markup=False,
            highlight=False,
        )
    return 0 if found.fitting else 1
