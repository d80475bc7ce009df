"""Peak memory and time of one forward and backward pass with full, chunked and fused cross entropy, beside the planner.

    python bench/bench_loss.py [--tokens 8192] [--vocab 32768] [--out result.json]

Each kind runs in a process of its own, one thread, fp32 on the CPU; the memory is what the pass added to the process' peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any, get_args

import torch

from lablib.models.build import build_model
from lablib.plan.memory import CHUNK_TOKENS
from lablib.specs import ModelSpec
from lablib.specs.recipe import CrossEntropy
from lablib.train.batches import Batch
from lablib.train.losses import TokenLosses
from lablib.train.meter import peak_gib

SEQ_LEN, HIDDEN = 512, 128


def one(kind: CrossEntropy, tokens: int, vocab: int) -> dict[str, float]:
    """GiB that a pass adds to the process' peak, and its seconds."""
    torch.set_num_threads(1)
    spec = ModelSpec(family="qwen3", layers=1, hidden=HIDDEN, heads=2, head_dim=64, ffn=256, vocab=vocab)
    model = build_model(spec, 0).train()
    losses = TokenLosses(model, kind)

    def run(rows: int) -> float:
        ids = torch.randint(vocab, (rows, SEQ_LEN), generator=torch.Generator().manual_seed(0))
        begun = time.perf_counter()
        losses.sum(Batch(ids, ids.roll(-1, 1), torch.arange(SEQ_LEN).expand(rows, -1).contiguous())).backward()
        return time.perf_counter() - begun

    run(1)
    before = peak_gib(torch.device("cpu"))
    seconds = run(tokens // SEQ_LEN)
    return {"gib": peak_gib(torch.device("cpu")) - before, "seconds": seconds}


def measure(tokens: int, vocab: int) -> dict[str, Any]:
    """Every kind, and what the planner says of their logits (three fp32 copies at once, and a fused one's gradient of the head)."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = {kind: pool.apply(one, (kind, tokens, vocab)) for kind in get_args(CrossEntropy)}
    for kind, row in found.items():
        rows = tokens if kind == "full" else min(tokens, CHUNK_TOKENS)
        row["planned_gib"] = (rows * vocab * 12 + (kind == "fused") * vocab * HIDDEN * 4) / 2**30
    return {"bench": "loss", "tokens": tokens, "vocab": vocab, "torch": torch.__version__, **found}


def main() -> None:
    """Print the result as JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.tokens, given.vocab), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
