"""The ladder behind the loss forecast: ``python -m bench.ladder FOLDER [--refit]``.

Trains a few small models on the ``core`` corpus at several lengths with the tour's settings, each in its own run folder
below FOLDER (kept, so that ``--refit`` only reads them), and fits L = E + A/N^α + B/D^β to the losses at their ends.
Prints one row a run and the constants that `lablib.plan.laws` holds. Some minutes of CPU; the dated result is in
``docs/log.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from lablib.plan import count_params
from lablib.plan.laws import fit
from lablib.runs import Recorder, Run
from lablib.specs import ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Recipe, Ref, Schedule
from lablib.stages import execute

RUNGS = (
    # layers, hidden, thousands of tokens
    (2, 64, 512), (2, 64, 2048), (4, 128, 512), (4, 128, 1024), (4, 128, 2048), (4, 192, 512), (4, 192, 1024), (6, 256, 384),
)  # fmt: skip
FLOOR = 1.5
"""Least irreducible loss in nats a token: about one bit a character of text at 3.3 bytes a token, less what code and
boilerplate give away. A ladder this small cannot measure it."""
LAST = 0.04
"""Share of a run's last steps whose mean loss counts as its end."""


def rung(layers: int, hidden: int, thousands: int, data: Ref) -> Pretrain:
    """One run of the ladder: the tour's shape and settings at another size and length."""
    model = ModelSpec(
        family="qwen3", layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=max(1, hidden // 128), head_dim=64,
        ffn=3 * hidden, vocab=4096, tied_embeddings=True, max_seq_len=1024,
    )  # fmt: skip
    return Pretrain(
        name=f"ladder-{layers}x{hidden}-{thousands}k", model=model, data=data, tokens=thousands * 1000, seq_len=256, batch_tokens=4096,
        optimizer=Optimizer(learning_rate=3e-3), schedule=Schedule(kind="wsd", warmup=0.05, decay=0.3),
        parallelism=Parallelism(micro_batch_size=16), precision="fp32", threads=2, checkpoint_every=10**6, eval_every=10**6,
    )  # fmt: skip


def done(root: Path, name: str) -> Run | None:
    """The completed run of that name below `root`."""
    found = [Run.open(path) for path in sorted(root.glob(f"{name}-2*"))]
    return next((run for run in found if run.state == "completed"), None)


def ensure(root: Path, recipe: Recipe) -> Run:
    """The run of a recipe: the one that is there, or a new one in this process."""
    known = done(root, recipe.name)
    if known is None:
        recorder = Recorder.create(root, recipe)
        with recorder.working():
            execute(recipe, recorder)
        known = Run.open(recorder.path)
    return known


def row(run: Run) -> dict[str, float]:
    """Parameters, tokens, and the loss at the end of training and on held-out text, nats a token."""
    recipe = run.recipe
    assert isinstance(recipe, Pretrain)
    losses = [line["loss"] for line in run.rows("train")]
    tail = losses[-max(4, round(LAST * len(losses))) :]
    heldout = run.rows("eval")[-1]
    return {"params": count_params(recipe.model).total, "tokens": recipe.steps * recipe.step_tokens, "loss": statistics.mean(tail),
            "heldout": heldout["loss"], "seconds": round(run.seconds, 1)}  # fmt: skip


def main() -> None:
    """Run what is missing, print rows and constants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--refit", action="store_true", help="only read the runs that are there")
    args = parser.parse_args()
    data = ensure(args.folder, Prepare(name="ladder-data", corpus="core", vocab=4096, max_bytes="24 MB"))
    recipes = [rung(*size, data.data) for size in RUNGS]
    runs = [done(args.folder, recipe.name) if args.refit else ensure(args.folder, recipe) for recipe in recipes]
    rows = [row(run) for run in runs if run is not None]
    for line in rows:
        print(json.dumps(line))
    names = ("e", "a", "alpha", "b", "beta", "spread")
    columns = [np.array([line[key] for line in rows]) for key in ("params", "tokens", "loss")]
    print(json.dumps(dict(zip(names, fit(*columns, floor=FLOOR), strict=True)), indent=1))


if __name__ == "__main__":
    main()
