"""The bench of the training step pairs equals: the same data and weights give the Trainer and us the same losses."""

from __future__ import annotations

import pytest

from bench.train.pairs import Setting, measure
from lablib.specs import ModelSpec

TINY = Setting(
    ModelSpec(family="qwen3", layers=1, hidden=32, heads=2, kv_heads=1, head_dim=16, ffn=64, vocab=128, tied_embeddings=True),
    seq_len=32, micro=2, per_step=4,
)  # fmt: skip


def test_every_side_trains_on_the_same() -> None:
    found = measure(TINY, turns=2, warm=1)
    losses = found["losses"]
    assert losses["lab"] == pytest.approx(losses["HF Trainer"], abs=2e-5)
    assert losses["lab"] == pytest.approx(losses["plain loop"], abs=2e-5)
    assert found["ratio"]["lab"] == [1, 1, 1] and all(seconds > 0 for seconds in found["cpu_seconds"].values())
