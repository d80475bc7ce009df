"""The ladder behind the loss forecast: ``python -m bench.ladder FOLDER [--refit]``.

Trains a few small models on the ``core`` corpus at several lengths with the tour's settings, each in its own run folder
below FOLDER (kept, so that ``--refit`` only reads them), and fits L = E + A/N^α + B/D^β to their curves.
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
from lablib.specs import LabError, ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Recipe, Ref, Schedule
from lablib.stages import execute

RUNGS = (
    # layers, hidden, thousands of tokens
    (2, 64, 512), (2, 64, 2048), (4, 128, 512), (4, 128, 1024), (4, 128, 2048), (4, 192, 512),
)  # fmt: skip
FLOOR = 1.5
"""Least irreducible loss in nats a token: about one bit a character of text at 3.3 bytes a token, less what code and
boilerplate give away. A ladder this small cannot measure it."""
WINDOW = 30
"""Steps that one point of a curve averages over: batches differ in what they are made of by some hundredths."""


def rung(layers: int, hidden: int, thousands: int, data: Ref) -> Pretrain:
    """One run of the ladder: the tour's shape and settings at another size and length."""
    model = ModelSpec(
        family="qwen3", layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=max(1, hidden // 128), head_dim=64,
        ffn=3 * hidden, vocab=4096, tied_embeddings=True, max_seq_len=1024,
    )  # fmt: skip
    return Pretrain(
        name=f"ladder-{layers}x{hidden}-{thousands}k", model=model, data=data, tokens=thousands * 1000, seq_len=256, batch_tokens=4096,
        optimizer=Optimizer(learning_rate=3e-3), schedule=Schedule(kind="wsd", warmup=0.05, decay=0.3),
        parallelism=Parallelism(micro_batch_size=16), precision="fp32", threads=1, checkpoint_every=10**6, eval_every=10**6,
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
    if known.state != "completed":
        raise LabError(f"{recipe.name} was stopped; run the ladder again to continue")
    return known


def points(run: Run) -> list[tuple[int, float, float]]:
    """(parameters, tokens, mean loss) along a run's curve, beginning when the first window has passed."""
    recipe = run.recipe
    assert isinstance(recipe, Pretrain)
    losses, size = [line["loss"] for line in run.rows("train")], count_params(recipe.model).total
    ends = range(2 * WINDOW, len(losses) + 1, WINDOW // 2)
    return [
        (size, (end - WINDOW / 2) * recipe.step_tokens, statistics.mean(losses[end - WINDOW : end])) for end in ends
    ]


def main() -> None:
    """Run what is missing, print rows and constants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--refit", action="store_true", help="only read the runs that are there")
    args = parser.parse_args()
    data = ensure(args.folder, Prepare(name="ladder-data", corpus="core", vocab=4096, max_bytes="24 MB"))
    recipes = [rung(*size, data.data) for size in RUNGS]
    runs = [done(args.folder, recipe.name) if args.refit else ensure(args.folder, recipe) for recipe in recipes]
    measured = [point for run in runs if run is not None for point in points(run)]
    for run in filter(None, runs):
        last, heldout = points(run)[-1], run.rows("eval")[-1]["loss"]
        print(
            json.dumps(
                {"params": last[0], "steps": run.recipe.steps, "loss": round(last[2], 3), "heldout": round(heldout, 3)}
            )
        )
    names = ("e", "a", "alpha", "b", "beta", "spread")
    print(json.dumps(dict(zip(names, fit(*np.array(measured).T, floor=FLOOR), strict=True)), indent=1))


if __name__ == "__main__":
    main()
