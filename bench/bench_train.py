"""Tokens a second of the lab's loop beside a plain torch loop on the same model, in the same process, turn by turn.

    python bench/bench_train.py [--threads 1] [--turns 5] [--steps 4] [--out result.json]

Both sides see the same tokens with the same document boundaries, in fp32 on the CPU; the plain side is what one would
write by hand (`plain`). Turns alternate, so that a busy machine slows both; the ratio is the median over turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lablib.data import Window
from lablib.models.build import build_model
from lablib.models.layout import Place
from lablib.specs import ModelSpec, Optimizer
from lablib.train.batches import Batches
from lablib.train.distributed import joined
from lablib.train.optimizer import build_optimizer
from lablib.train.step import Stepper

MODEL = ModelSpec(
    family="qwen3", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=4096, tied_embeddings=True
)
SEQ_LEN, MICRO, PER_STEP = 256, 8, 16


class Made:
    """Random tokens in documents of about 85."""

    def __getitem__(self, index: int) -> Window:
        """The window of an index, as a `PackedDataset` gives it."""
        draw, size = np.random.default_rng(index), SEQ_LEN + 1
        cuts = np.sort(draw.choice(np.arange(1, size), size=2, replace=False))
        documents = np.searchsorted(cuts, np.arange(size), side="right")
        positions = np.arange(size) - np.concatenate([[0], cuts])[documents]
        return Window(draw.integers(0, MODEL.vocab, size), positions, documents, "made")


class Ours:
    """The lab's step on the lab's batches."""

    def __init__(self) -> None:
        model, place, cpu = build_model(MODEL, 0).train(), Place(0, 1, 1), torch.device("cpu")
        self.batches = Batches(Made(), place, PER_STEP, MICRO, document_mask=True, device=cpu)
        with joined(1, torch.get_num_threads()) as world:
            self.step = Stepper(model, build_optimizer(model, Optimizer()), world, place, 1.0, autocast=False)

    def run(self, first: int, steps: int) -> None:
        """Train on `steps` steps from sequence `first`."""
        for number in range(steps):
            self.step(self.batches.at(first + number * PER_STEP))


class Plain:
    """A loop as one would write it by hand."""

    def __init__(self) -> None:
        self.model = build_model(MODEL, 0).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
        self.data = Made()

    def run(self, first: int, steps: int) -> None:
        """Train on `steps` steps from sequence `first`."""
        for start in range(first, first + steps * PER_STEP, PER_STEP):
            for at in range(start, start + PER_STEP, MICRO):
                windows = [self.data[i] for i in range(at, at + MICRO)]
                tokens = torch.from_numpy(np.stack([window.tokens for window in windows]))
                positions = torch.from_numpy(np.stack([window.positions for window in windows]))[:, :-1]
                labels = torch.from_numpy(np.stack([window.labels for window in windows]))
                logits = self.model(input_ids=tokens[:, :-1], position_ids=positions, use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
                (loss * MICRO / PER_STEP).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()


def speed(side: Ours | Plain, first: int, steps: int) -> float:
    """Tokens a second over `steps` steps."""
    begun = time.perf_counter()
    side.run(first, steps)
    return steps * PER_STEP * SEQ_LEN / (time.perf_counter() - begun)


def measure(threads: int, turns: int, steps: int) -> dict[str, Any]:
    """Alternate the two sides after one unmeasured turn of each; every turn is a pair."""
    torch.set_num_threads(threads)
    sides = {"ours": Ours(), "plain": Plain()}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        order = list(sides) if turn % 2 else list(reversed(sides))
        for name in order:
            rate = speed(sides[name], turn * steps * PER_STEP, steps)
            if turn:
                found[name].append(rate)
    ratios = [ours / plain for ours, plain in zip(found["ours"], found["plain"], strict=True)]
    return {
        "bench": "train",
        "model": MODEL.model_dump(mode="json", exclude_none=True),
        "sequences": {"length": SEQ_LEN, "micro_batch": MICRO, "step": PER_STEP},
        "threads": threads,
        "tokens_per_second": {name: statistics.median(rates) for name, rates in found.items()},
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "turns": turns},
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
    }


def main() -> None:
    """Print the result as JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("threads", 1), ("turns", 5), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.threads, given.turns, given.steps), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
