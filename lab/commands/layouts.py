"""Every way to lay a model's training over a cluster, fastest first, with the reason why the others lose.

lab layouts llama-3-70b --accelerator h100-sxm --nodes 8
lab layouts qwen3-30b-a3b --accelerator b200-sxm --nodes 8 --precision bf16 fp8 --seq-len 8192
lab layouts llama-3-8b --accelerator h100-sxm --nodes 2 --save recipe.toml     the fastest as a recipe for `lab submit`
lab layouts llama-3-70b --accelerator h100-sxm --nodes 32 --check              lay the fastest out, rank by rank, on no GPU

Searched are replicas × shards (FSDP) × tensor × pipeline × context parallelism, expert parallelism, micro-batches,
interleaving, precision and recomputation. The guide's rule of thumb for the model's size stands below the table.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, get_args

from lab.show import cluster_arguments, cluster_of, console, machines, table
from lablib.plan.memory import GIB
from lablib.plan.search import find_layouts
from lablib.specs import ModelSpec, Pretrain, catalog
from lablib.specs.recipe import CrossEntropy, Precision, Recompute

if TYPE_CHECKING:
    from lablib.train.dryrun import Held

_CLOSE = 0.01
"""Largest share by which a rank's states may differ from the plan: what does not divide evenly is far below it."""


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
    command.add_argument(
        "--check",
        action="store_true",
        help="lay the fastest out over pretended ranks and compare what they hold with the plan",
    )
    command.add_argument("--tokens", default=None, help="tokens of the saved recipe (default: 20 a parameter)")
    command.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Search and show. Gives 1 where no layout can run."""
    model = catalog.models[args.model] if args.model in catalog.models else ModelSpec.from_hf(args.model)
    found = find_layouts(model, cluster_of(args), args.batch_tokens, args.seq_len, precision=args.precision, recompute=args.recompute,
                           zero=args.zero, gpus=args.gpus, cross_entropy=args.cross_entropy, top=args.top)  # fmt: skip
    if args.save:
        found.best.recipe(tokens=args.tokens, name=args.model.split("/")[-1].replace(".", "-")).save(args.save)
    if args.check:
        return _check(found.best.recipe(tokens=args.tokens), args.json)
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


def _check(recipe: Pretrain, as_json: bool) -> int:
    """Give 1 where a rank would hold more than 1 % more or less than planned."""
    from lablib.train.dryrun import lay_out_dry

    held = lay_out_dry(recipe)
    if as_json:
        rows = [{**asdict(one), "counted_bytes": one.counted_bytes, "excess": one.excess} for one in held]
        print(json.dumps({"layout": recipe.parallelism.model_dump(), "stages": rows}))
    else:
        columns = ["stage", "tensors", "parameters a rank", "states GiB", "planned GiB", "excess"]
        cells = [_cells(one) for one in held]
        console.print(table(columns, cells, f"{recipe.gpus} ranks laid out on none: {recipe.parallelism}"))
    return int(any(abs(one.excess) > _CLOSE for one in held))


def _cells(one: Held) -> list[str]:
    counted, planned = one.counted_bytes / GIB, one.planned_bytes / GIB
    return [
        str(one.pp_rank),
        str(one.tensors),
        f"{one.parameters:,}",
        f"{counted:.3f}",
        f"{planned:.3f}",
        f"{one.excess:+.2%}",
    ]
