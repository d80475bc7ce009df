"""CPU-seconds and peak memory of a training pass with attention inside documents, and with transformers' mask over sequences.

    python bench/bench_documents.py [--seq-len 2048] [--document 400] [--turns 3] [--out result.json]

Documents have exponential lengths with the mean that is given. Each kind runs in a process of its own, one thread, fp32; losses must agree.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch

from lablib.models.build import build_model
from lablib.models.documents import attend_within
from lablib.specs import ModelSpec
from lablib.specs.memory import peak_gib
from lablib.train.batches import Batch
from lablib.train.losses import TokenLosses

MODEL = ModelSpec(family="qwen3", layers=6, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=1024)


def positions(length: int, mean: int) -> torch.Tensor:
    """Of one packed sequence, int64 (1, length)."""
    lengths = torch.empty(length).exponential_(1 / mean, generator=torch.Generator().manual_seed(0)).ceil().long()
    ends = lengths.cumsum(0)
    place = torch.arange(length)
    number = torch.searchsorted(ends, place, right=True)
    return (place - (ends - lengths)[number])[None]


def one(kind: str, length: int, mean: int, turns: int) -> dict[str, float]:
    """Loss, CPU-seconds of the fastest pass, and what the passes added to the process' peak."""
    torch.set_num_threads(1)
    model = build_model(MODEL.reaching(length), 0).train()
    if kind == "documents":
        attend_within(model)
    losses, tokens = TokenLosses(model), torch.randint(1024, (1, length), generator=torch.Generator().manual_seed(0))

    def run(size: int) -> tuple[float, float]:
        begun = time.process_time()
        part = Batch(tokens[:, :size], tokens[:, :size].roll(-1, 1), positions(size, mean))
        loss = losses(part).mean()
        loss.backward()
        return time.process_time() - begun, loss.item()

    run(64)
    before = peak_gib()
    found = [run(length) for _ in range(turns)]
    return {"loss": found[0][1], "cpu_seconds": min(found)[0], "gib": peak_gib() - before}


def measure(length: int, mean: int, turns: int) -> dict[str, Any]:
    """Both kinds. Raises ValueError where they do not compute the same."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        mask, inside = (pool.apply(one, (kind, length, mean, turns)) for kind in ("mask", "documents"))
    if not math.isclose(mask["loss"], inside["loss"], rel_tol=1e-5):
        raise ValueError(f"losses differ: {mask['loss']} with a mask, {inside['loss']} inside documents")
    ratio = mask["cpu_seconds"] / inside["cpu_seconds"]
    return {"seq_len": length, "document": mean, "mask": mask, "documents": inside, "times faster": ratio}


def main() -> None:
    """Print the result as JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--document", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.seq_len, given.document, given.turns), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
