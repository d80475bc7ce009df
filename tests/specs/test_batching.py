"""A batch that grows: every token is in exactly one step, sizes double, and counts agree with adding up step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import estimate
from lablib.specs import Cluster, LabError, ModelSpec, Parallelism, Pretrain
from lablib.specs.batching import BatchRamp, Steps

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, ffn=128, vocab=512, max_seq_len=128)
BASE: dict[str, Any] = {"model": MODEL, "tokens": 64_000, "seq_len": 100, "batch_tokens": 1600}


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 20_000),
    sizes=st.lists(st.integers(20, 500), max_size=4).map(lambda found: tuple(sorted(found))),
    over=st.integers(1, 20_000),
)
def test_sizes_and_counts_are_those_of_a_step_by_step_count(tokens: int, sizes: tuple[int, ...], over: int) -> None:
    cut = Steps.of(tokens, 600, sizes, over)
    listed = [cut.size(step) for step in range(cut.count)]
    assert listed == sorted(listed) and set(listed) <= {*sizes, 600}
    assert [cut.before(step) for step in range(cut.count + 1)] == [sum(listed[:n]) for n in range(cut.count + 1)]
    assert cut.tokens - listed[-1] < tokens <= cut.tokens


def test_llama_3s_schedule() -> None:
    """4M tokens a step, 8M after 252M tokens, 16M after 2.87T: §3.4.1. Equal shares are ours, so one doubling is compared."""
    recipe = Pretrain(
        model=MODEL, tokens="2.87T", seq_len=64, batch_tokens="8M", batch_ramp=BatchRamp(start="4M", tokens="252M")
    )
    assert recipe.cut.stages[0] == (63, 4_000_000)
    assert recipe.cut.size(62) == 4_000_000 and recipe.cut.size(63) == 8_000_000


def test_each_size_reads_an_equal_share() -> None:
    recipe = Pretrain(**BASE, batch_ramp=BatchRamp(start=400, tokens=8000))
    assert recipe.cut.stages == ((10, 400), (5, 800), (35, 1600))
    assert recipe.steps == 50


def test_a_run_shorter_than_its_ramp_ends_in_it() -> None:
    recipe = Pretrain(**{**BASE, "tokens": 3000}, batch_ramp=BatchRamp(start=800, tokens=8000))
    assert recipe.cut.stages == ((4, 800),)


def test_without_a_ramp_nothing_has_changed() -> None:
    plain = Pretrain(**BASE)
    assert plain.cut.stages == ((40, 1600),) and "batch_ramp" not in plain.science()
    assert plain.science_hash != Pretrain(**BASE, batch_ramp=BatchRamp(start=800, tokens=1600)).science_hash


def test_layouts_that_cut_alike_are_one_experiment() -> None:
    ramp = BatchRamp(start=400, tokens=8000)
    one, two = (Pretrain(**BASE, batch_ramp=ramp, parallelism=Parallelism(dp_shard=n)) for n in (1, 2))
    assert one.science_hash == two.science_hash


@pytest.mark.parametrize("start", [1600, 2000, 50])
def test_a_start_that_is_no_smaller_batch_is_refused(start: int) -> None:
    with pytest.raises(LabError, match=rf"batch_ramp.start={start}.*less than the batch of 1600 tokens.*= 100"):
        Pretrain(**BASE, batch_ramp=BatchRamp(start=start, tokens=8000))


def test_the_plan_adds_up_the_steps_of_each_size() -> None:
    cluster = Cluster(accelerator="h100-sxm", gpus_per_node=1)
    ramped = Pretrain(**BASE, batch_ramp=BatchRamp(start=400, tokens=8000))
    whole = estimate(ramped, cluster)
    seconds = 0.0
    for count, size in ramped.cut.stages:
        alone = estimate(Pretrain(**{**BASE, "batch_tokens": size, "tokens": count * size}), cluster)
        assert alone.steps == count
        seconds += count * alone.step_seconds
    assert whole.steps == 50 and whole.steps * whole.step_seconds == pytest.approx(seconds)
    assert whole.flops.total == pytest.approx(estimate(Pretrain(**BASE), cluster).flops.total)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integers_do_not_train(precision: str) -> None:
    with pytest.raises(LabError, match=rf"precision='{precision}' is for serving.*rounded away.*'bf16'"):
        Pretrain(**BASE, precision=precision)  # type: ignore[arg-type]
