"""The plan as a whole: every stage, verdicts with remedies, monotonicity, the account, and the way to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_shapes import models

from lablib.plan import Estimate, estimate, money
from lablib.plan.params import count
from lablib.runs import Recorder
from lablib.specs import (
    GRPO,
    SFT,
    Accelerator,
    Calibrate,
    Cluster,
    Evaluate,
    Export,
    LabError,
    LoRA,
    Merge,
    Midtrain,
    ModelSpec,
    Needle,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Recipe,
    Task,
)

H100 = Cluster(accelerator="h100-sxm", nodes=8)
CPU = Cluster(
    accelerator=Accelerator(name="cpu", kind="cpu", memory_gib=16, bandwidth_gb_s=20, measured_tflops={"fp32": 0.1}),
    gpus_per_node=2,
)
TASK = Task(name="sums", generator="chain_sum")
SMALL = ModelSpec(layers=4, hidden=256, heads=4, ffn=768, vocab=4096)


def pretrain(**changes: object) -> Pretrain:
    base = {
        "model": "llama-3-8b",
        "tokens": "100B",
        "seq_len": 8192,
        "batch_tokens": "4M",
        "parallelism": Parallelism(dp_shard=64),
    }
    return Pretrain(**{**base, **changes})


STAGES: list[Recipe] = [
    Prepare(),
    pretrain(),
    Midtrain(model="qwen3-0.6b", start="smollm2-135m-instruct", tokens="1B", batch_tokens="1M"),
    Merge(models=("qwen3-0.6b", "qwen3-0.6b")),
    SFT(model="smollm2-135m-instruct", data=TASK),
    SFT(model="qwen3-8b", data="rows.jsonl", lora=LoRA(rank=8)),
    Preference(model="smollm2-135m", data=TASK),
    GRPO(model="qwen3-0.6b", task=TASK, beta=0.1),
    Evaluate(models={"base": "llama-3.2-1b", "other": "qwen3-0.6b"}, tasks=(TASK,), samples=2),
    Evaluate(models={"base": "llama-3.2-1b"}, needle=Needle()),
    Export(model="qwen3-0.6b"),
    Calibrate(),
]


@pytest.mark.parametrize("recipe", STAGES, ids=lambda recipe: recipe.stage)
@pytest.mark.parametrize("cluster", [H100, CPU], ids=["gpu", "cpu"])
def test_every_stage_has_a_whole_plan_that_survives_json(recipe: Recipe, cluster: Cluster) -> None:
    recipe = recipe.replace(precision="fp32") if hasattr(recipe, "precision") else recipe
    plan = estimate(recipe, cluster)
    assert Estimate.from_json(plan.to_json()) == plan
    assert plan.step_seconds == pytest.approx(sum(plan.step_parts.values()))
    assert plan.memory.peak_gib == pytest.approx(sum(plan.memory.parts.values()))
    assert 0 < plan.gpu_hours.low < plan.gpu_hours.mid < plan.gpu_hours.high
    assert plan.days.mid == pytest.approx(plan.gpu_hours.mid / recipe.gpus / 24)
    assert plan.step_seconds * plan.steps < plan.days.high * 86400
    assert (plan.mfu is None) == (cluster is CPU or not plan.flops.total)
    names = {entry.name for entry in plan.ledger}
    assert {"memory.peak_gib", "step_seconds", "hours", "gpu_hours"} <= names
    assert all(entry.formula for entry in plan.ledger)
    assert recipe.stage in str(plan) and "<table>" in plan._repr_html_()


def test_a_merge_of_large_models_needs_memory_for_their_largest_tensor() -> None:
    """One in fp32 beside its sum and a summand in fp64: 20 bytes an element, as a merge of two 256 MiB tensors held 1,280 MiB."""
    plan = estimate(Merge(models=("llama-3.1-70b", "llama-3.1-70b")), CPU)
    assert plan.memory.parts["params"] == pytest.approx(20 * 128256 * 8192 / 2**30)
    small = estimate(Merge(models=("qwen3-0.6b", "qwen3-0.6b")), CPU)
    assert small.memory.parts["params"] == pytest.approx(1 + 16 * 151936 * 1024 / 2**30)


def test_the_headline_numbers_are_the_definitions() -> None:
    recipe = pretrain()
    plan = estimate(recipe, H100)
    tokens = recipe.steps * recipe.step_tokens
    assert plan.params.total == count(recipe.model).total
    assert plan.flops.total == plan.flops.per_token * tokens
    assert plan.flops.total == pytest.approx(6 * plan.params.total * tokens, rel=0.15)
    assert plan.tokens_per_second_per_gpu == pytest.approx(recipe.step_tokens / plan.step_seconds / 64)
    assert plan.mfu == pytest.approx(plan.flops.per_token * plan.tokens_per_second_per_gpu / 989e12)
    assert plan.dollars is not None and plan.energy_kwh is not None and plan.co2e_kg is not None
    assert plan.dollars.mid == pytest.approx(plan.gpu_hours.mid * 3.99)
    assert plan.energy_kwh.mid == pytest.approx(plan.gpu_hours.mid * 0.7 * money.DRAW.mid * money.PUE.mid)
    assert plan.co2e_kg.mid == pytest.approx(plan.energy_kwh.mid * money.CARBON.mid)
    own = estimate(recipe, H100.replace(price_per_gpu_hour="$2"))
    assert own.dollars is not None and own.dollars.high == pytest.approx(2 * own.gpu_hours.high)


PUBLISHED_RUNS = [
    # model, tokens, sequence, GPUs taken here, published GPU-hours on A100-SXM-80GB
    ("llama-1-13b", "1T", 2048, 512, 135_168),  # arXiv 2302.13971 Table 15
    ("llama-1-65b", "1.4T", 2048, 2048, 1_022_362),  # the same
    ("llama-2-7b", "2T", 4096, 512, 184_320),  # arXiv 2307.09288 Table 2
    ("llama-2-70b", "2T", 4096, 1024, 1_720_320),  # the same
]


@pytest.mark.parametrize(("model", "tokens", "seq_len", "gpus", "hours"), PUBLISHED_RUNS)
def test_published_runs_lie_in_the_band(model: str, tokens: str, seq_len: int, gpus: int, hours: float) -> None:
    layout = Parallelism(dp_shard=gpus, micro_batch_size=4096 // seq_len)  # 4K tokens, so that gathers hide
    recipe = pretrain(
        model=model, tokens=tokens, seq_len=seq_len, batch_tokens=4 * seq_len * gpus, parallelism=layout, compile=True
    )
    plan = estimate(recipe, Cluster(accelerator="a100-sxm", nodes=gpus // 8))
    assert hours in plan.gpu_hours
    assert plan.gpu_hours.mid == pytest.approx(hours, rel=0.3)
    assert plan.mfu is not None and 0.35 < plan.mfu < 0.6


def test_recomputation_is_hardware_work_and_not_model_work() -> None:
    none, full = estimate(pretrain(), H100), estimate(pretrain(recompute="full"), H100)
    assert none.flops.total == none.flops.hardware == full.flops.total < full.flops.hardware
    assert full.step_seconds > none.step_seconds and full.memory.peak_gib < none.memory.peak_gib


def test_too_many_gpus_is_said_with_the_remedy() -> None:
    plan = estimate(pretrain(parallelism=Parallelism(dp_shard=128)), H100)
    assert not plan.fits
    assert "needs 128 GPUs but the cluster has 64" in plan.warnings[0] and "16 nodes" in plan.warnings[0]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"tp": 16, "dp_shard": 4}, "tp=16 does not divide kv_heads=8; 8 does"),
        ({"cp": 3, "dp_shard": 16}, "cp=3 does not divide seq_len=8192"),
        ({"pp": 33}, "pp=33 is more than layers=32"),
        ({"ep": 8, "dp_shard": 8}, "needs experts, which this model has not"),
    ],
)  # fmt: skip
def test_a_layout_that_does_not_divide_is_said(layout: dict[str, int], words: str) -> None:
    parallelism = Parallelism(**layout)
    batch = 8192 * parallelism.dp * 8
    plan = estimate(pretrain(parallelism=parallelism, batch_tokens=batch), H100)
    assert not plan.fits and any(words in warning for warning in plan.warnings)


def test_too_much_memory_names_a_change_that_then_fits() -> None:
    plan = estimate(pretrain(parallelism=Parallelism(dp_shard=64, micro_batch_size=8)), H100)
    assert not plan.fits and "micro_batch_size=1 would fit" in plan.warnings[0]
    assert estimate(pretrain(recompute="selective"), H100).fits
    alone = estimate(pretrain(parallelism=Parallelism(), batch_tokens=8192), H100)
    assert not alone.fits and "offload='optimizer' would fit" in alone.warnings[0]
    assert alone.memory.margin < 0


def test_processes_on_a_cpu_share_its_memory() -> None:
    one = estimate(
        pretrain(model=SMALL, seq_len=256, batch_tokens=4096, precision="fp32", parallelism=Parallelism()), CPU
    )
    two = estimate(
        pretrain(model=SMALL, seq_len=256, batch_tokens=4096, precision="fp32", parallelism=Parallelism(dp_shard=2)),
        CPU,
    )
    assert (one.memory.capacity_gib, two.memory.capacity_gib) == (16, 8)
    four = estimate(
        pretrain(model=SMALL, seq_len=256, batch_tokens=4096, precision="fp32", parallelism=Parallelism(dp_shard=4)),
        CPU,
    )
    assert four.fits and any("share 2 cores" in warning for warning in four.warnings)


def test_what_nobody_knows_is_none_and_said() -> None:
    plan = estimate(
        pretrain(model=SMALL, seq_len=256, batch_tokens=4096, precision="fp32", parallelism=Parallelism()), CPU
    )
    assert plan.mfu is plan.dollars is plan.energy_kwh is plan.co2e_kg is None
    assert any("no price is known" in warning for warning in plan.warnings)


def test_an_impossible_accelerator_is_an_error() -> None:
    liar = H100.replace(accelerator=H100.accelerator.replace(measured_tflops={"bf16": 5000.0}))
    with pytest.raises(LabError, match="which cannot be"):
        estimate(pretrain(), liar)


def test_a_precision_without_a_rate_is_an_error_that_lists_the_known_ones() -> None:
    a100 = Cluster(accelerator="a100-sxm", nodes=8)
    with pytest.raises(LabError, match=r"precision='fp8': no rate is known for a100-sxm \(known: bf16"):
        estimate(pretrain(precision="fp8"), a100)


def test_a_reference_is_planned_from_the_run_it_names(tmp_path: Path) -> None:
    first = Recorder.create(tmp_path, pretrain(model=SMALL, seq_len=256, batch_tokens=4096, parallelism=Parallelism()))
    ref = {"run": first.path.name, "artefact": "model", "science": "x"}
    tuned = Recorder.create(tmp_path, SFT(model=ref, data=TASK))
    last = SFT(model={**ref, "run": tuned.path.name}, data=TASK)
    assert estimate(last, H100, root=tmp_path).params.total == count(SMALL).total
    with pytest.raises(LabError, match="There is no run"):
        estimate(last, H100, root=tmp_path / "elsewhere")


def test_preference_costs_a_reference_pass_and_a_reference_copy() -> None:
    alone = estimate(SFT(model="qwen3-0.6b", data="x.jsonl", batch_size=32), H100)
    pairs = estimate(Preference(model="qwen3-0.6b", data="x.jsonl", batch_size=16), H100)
    assert pairs.flops.per_token == pytest.approx(alone.flops.per_token * 4 / 3)
    assert pairs.memory.parts["params"] == pytest.approx(2 * alone.memory.parts["params"])
    adapters = estimate(Preference(model="qwen3-0.6b", data="x.jsonl", batch_size=16, lora=LoRA()), H100)
    assert adapters.memory.parts["params"] < 1.1 * alone.memory.parts["params"]


def test_grpo_spends_generation_and_training_and_holds_a_cache() -> None:
    plan = estimate(GRPO(model="qwen3-0.6b", task=TASK, batch_size=64), H100)
    assert plan.step_parts["generation"] > 0 and plan.step_parts["compute"] > 0
    long = estimate(GRPO(model="qwen3-0.6b", task=TASK, batch_size=64, max_new_tokens=8192, seq_len=16384, recompute="full"), H100)  # fmt: skip
    assert long.memory.parts["kv_cache"] > 0 and long.memory.moment == "sampling"
    reused = estimate(GRPO(model="qwen3-0.6b", task=TASK, batch_size=16), H100)  # four updates on what was sampled once
    assert reused.step_parts["generation"] == pytest.approx(plan.step_parts["generation"] / 4)


RISING = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RISING
@given(models(), st.integers(1, 50), st.integers(2, 5))
def test_more_tokens_are_more_hours_and_no_more_memory(model: ModelSpec, steps: int, factor: int) -> None:
    base = {"model": model, "seq_len": 32, "batch_tokens": 256, "parallelism": Parallelism()}
    less, more = (estimate(pretrain(**base, tokens=256 * n), H100) for n in (steps, steps * factor))
    assert more.gpu_hours.mid > less.gpu_hours.mid and more.flops.total == pytest.approx(factor * less.flops.total)
    assert more.memory == less.memory


@RISING
@given(models(("llama", "qwen3")), st.integers(1, 3))
def test_a_deeper_or_wider_model_takes_more_of_everything(model: ModelSpec, more: int) -> None:
    base = {"seq_len": 32, "batch_tokens": 256, "tokens": 25600, "parallelism": Parallelism()}
    plan = estimate(pretrain(model=model, **base), H100)
    for larger in (model.replace(layers=model.layers + more), model.replace(ffn=model.ffn + 8 * more)):
        other = estimate(pretrain(model=larger, **base), H100)
        assert other.params.total > plan.params.total and other.flops.total > plan.flops.total
        assert other.memory.peak_gib > plan.memory.peak_gib and other.step_seconds >= plan.step_seconds


@RISING
@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([2, 4, 8]))
def test_sharding_wider_never_needs_more_memory_a_gpu(shard: int, factor: int) -> None:
    few, many = (
        estimate(pretrain(parallelism=Parallelism(dp_shard=n, dp_replicate=64 // n)), H100)
        for n in (shard, min(64, shard * factor))
    )
    assert sum(many.memory.parts[k] for k in ("params", "grads", "optimizer")) < sum(
        few.memory.parts[k] for k in ("params", "grads", "optimizer")
    )


def test_a_faster_machine_is_faster_and_a_dearer_one_dearer() -> None:
    recipe = pretrain()
    h100, b200 = estimate(recipe, H100), estimate(recipe, Cluster(accelerator="b200-sxm", nodes=8))
    assert b200.days.mid < h100.days.mid
    assert json.loads(h100.to_json())["days"]["low"] < h100.days.mid
