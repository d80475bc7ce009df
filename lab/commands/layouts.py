"""Every way to lay a model out over accelerators, fastest first, and why the others lose.

lab layouts llama-3.1-8b --accelerator h100-sxm --gpus 64
lab layouts llama-3.1-70b --accelerator h100-sxm --gpus 512 --seq-len 8192 --batch-tokens 4M --top 20
lab layouts qwen3-30b-a3b --accelerator b200-sxm --gpus 64 --json        every candidate, for scripts
"""

from __future__ import annotations

import argparse

from lab.show import console, emit, table, target
from lablib.plan.search import DEGREES, follows_rule, rule_of_thumb, search_layouts
from lablib.specs import catalog

COLUMNS = ("rank", *DEGREES, "recompute", "tokens_per_second_per_gpu", "mfu", "peak_gib", "fits", "reason")


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("model", help="a model of the catalogue, e.g. llama-3.1-8b")
    command.add_argument("--accelerator", default="h100-sxm", help="name in the catalogue (default: h100-sxm)")
    command.add_argument("--gpus", type=int, default=64, help="accelerators in all (default: 64)")
    command.add_argument("--batch-tokens", default="4M", help="tokens of one optimiser step (default: 4M)")
    command.add_argument("--seq-len", type=int, default=8192, help="tokens of a sequence (default: 8192)")
    command.add_argument("--top", type=int, default=10, help="rows to print (default: 10)")
    command.add_argument("--json", action="store_true", help="print every candidate as JSON records")


def run(args: argparse.Namespace) -> None:
    """Search and show."""
    model, cluster = catalog.models[args.model], target(args.accelerator, args.gpus)
    found = search_layouts(model, cluster, args.batch_tokens, args.seq_len)
    if args.json:
        emit(True, found.to_json(orient="records"), "")
        return
    rows = [[_shown(value) for value in row] for row in found[list(COLUMNS)].head(args.top).itertuples(index=False)]
    title = (
        f"{len(found):,} layouts of {args.model} on {args.gpus} × {args.accelerator}; {int(found['fits'].sum()):,} run"
    )
    console.print(table([name.replace("_", " ") for name in COLUMNS], rows, title))
    console.print(
        f"Rule of thumb (the guide, §8.4): {rule_of_thumb(model, cluster)}. {_rule(found, model)}", markup=False
    )


def _rule(found: object, model: object) -> str:
    import pandas as pd

    assert isinstance(found, pd.DataFrame)
    running = found[found["fits"]]
    obeying = running[running.apply(follows_rule, axis=1, model=model)] if len(running) else running
    if obeying.empty:
        return "No layout that follows it runs here."
    first = obeying.iloc[0]
    return f"The best that follows it is rank {first['rank']}: {first['reason'] or 'the fastest'}."


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
