"""The benches of training compare equals: the same data and weights give every side the same losses; a race is read off right."""

from __future__ import annotations

import pytest

from bench.train.pairs import Setting, measure
from bench.train.race import SIZES, Job, crossing, mark
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


def test_a_result_is_of_one_run_of_one_model() -> None:
    job, size = Job("lab", 1e-3, 8, 0.05, 4096), SIZES["quick"]
    others = (size, job._replace(seed=1)), (size._replace(hidden=128), job), (size._replace(layers=3), job)
    assert len({mark(*one) for one in ((size, job), *others)}) == 4
    assert mark(size, job) == mark(size._replace(target=2.0, seeds=9), job), "a longer race begins with what is there"


def test_a_race_is_read_off_between_two_lengths() -> None:
    runs = [{"seconds": t, "bits_per_byte": 4 * t**-0.25} for t in (10.0, 20.0, 40.0)]  # a power law is a line there
    assert crossing(runs, 4 * 33**-0.25) == pytest.approx(33)
    assert crossing(runs, 4 * 41**-0.25) == float("inf"), "the longest run does not get there"
    assert crossing(runs, 3.0) == 10, "nothing is said of runs shorter than the first"
