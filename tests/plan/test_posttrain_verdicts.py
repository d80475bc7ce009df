"""Post-training plans: two phases that take turns in memory, the forward pass alone, inputs that cannot be, what-ifs."""

from __future__ import annotations

import dataclasses

import pytest

from lablib.explorers.switches import switches
from lablib.plan import efficiency, estimate, sampling, step, work
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count, with_adapters
from lablib.posttrain.later import refuse_planned_only
from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    Cluster,
    LabError,
    LoRA,
    Parallelism,
    Preference,
    Recipe,
    Reward,
    Task,
    catalog,
    parse_recipe,
)

NODE = Cluster(accelerator="h100-sxm")
TASK = Task(name="sums", generator="chain_sum")
LLAMA, QWEN = catalog.models["llama-3.1-8b"], catalog.models["qwen2.5-7b"]
GIB = 2**30
SHARDED = Parallelism(dp_shard=8)


def reasoning(**changes: object) -> GRPO:
    base = {"model": "qwen2.5-7b", "task": TASK, "parallelism": SHARDED, "prompts_per_step": 32, "group_size": 8, "batch_size": 64,
            "max_new_tokens": 16384, "seq_len": 20000, "recompute": "full"}  # fmt: skip
    return GRPO(**{**base, **changes})


def test_sampling_and_training_take_turns_in_memory() -> None:
    plan = estimate(reasoning(), NODE)
    cache = (
        32 * (60 + 16384) * 28 * 2 * 4 * 128 * 2 / GIB
    )  # sequences × tokens × layers × (keys, values) × heads × 128 × 2 bytes
    assert plan.fits and "kv_cache" not in plan.memory.parts
    more = estimate(reasoning(prompts_per_step=64), NODE)  # twice the cache: now sampling is fuller
    assert more.memory.moment == "sampling" and more.memory.parts["kv_cache"] == pytest.approx(2 * cache)
    assert not {"grads", "activations", "logits"} & more.memory.parts.keys()  # set free after each optimiser step
    states = 12 * plan.params.total / 8 / GIB
    assert more.memory.parts["params"] + more.memory.parts["optimizer"] == pytest.approx(states)
    assert plan.memory.peak_gib < more.memory.peak_gib < plan.memory.peak_gib + 2 * cache


def test_a_serving_engine_takes_the_cache_that_there_is_room_for() -> None:
    recipe = reasoning(engine="vllm", prompts_per_step=64, group_size=16, batch_size=128)
    plan = estimate(recipe, NODE)
    assert plan.fits and plan.memory.moment == "sampling"
    assert plan.memory.peak_gib == pytest.approx(sampling.SERVING_SHARE * 80)
    roomy = NODE.replace(accelerator=NODE.accelerator.replace(memory_gib=800))
    whole = estimate(recipe, roomy)
    assert whole.memory.parts["kv_cache"] > plan.memory.parts["kv_cache"]
    assert whole.step_parts["generation"] < plan.step_parts["generation"]  # what the cache does not hold queues
    split = estimate(recipe.replace(sampler="split", sampler_gpus=8), NODE.replace(nodes=2))
    assert split.memory.parts["kv_cache"] > plan.memory.parts["kv_cache"]  # no trainer beside it


def test_an_engine_without_room_for_one_sequence_does_not_fit() -> None:
    small = NODE.replace(accelerator=NODE.accelerator.replace(memory_gib=31))
    recipe = reasoning(engine="vllm", max_new_tokens=64, seq_len=128, mean_tokens=100)
    assert estimate(recipe, small).fits
    long = reasoning(engine="vllm", max_new_tokens=131000, seq_len=131072, batch_size=256, mean_tokens=100, longest_tokens=131072,
                     offload="all", cross_entropy="chunked")  # fmt: skip
    plan = estimate(long, small)
    assert not plan.fits and plan.memory.peak_gib > 31 * sampling.SERVING_SHARE


def job(**changes: object) -> Job:
    base = Job(LLAMA, count(LLAMA), SHARDED, 4096, 64 * 4096)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


MACHINE = Machine(NODE, efficiency.of(NODE))


def test_a_forward_pass_repeats_nothing_and_trains_nothing() -> None:
    alone = work.forward_seconds(job(), 1e6, MACHINE)
    for policy in ("selective", "selective-op", "selective-layer", "attention", "full"):
        assert work.forward_seconds(job(recompute=policy), 1e6, MACHINE) == alone
    assert work.forward_seconds(job(reference=True), 1e6, MACHINE) == alone
    adapters = job(adapters=True, params=with_adapters(LLAMA, LoRA()))
    assert alone < work.forward_seconds(adapters, 1e6, MACHINE) < 1.3 * alone  # and the adapters' own traffic


def test_a_reference_computed_beforehand_is_the_same_pass_with_and_without_adapters() -> None:
    base = {
        "model": "llama-3.1-8b",
        "data": "x.jsonl",
        "precompute_reference": True,
        "batch_size": 64,
        "parallelism": SHARDED,
    }
    plain, lora, again = (
        next(
            entry.value for entry in estimate(Preference(**base, **more), NODE).ledger if entry.name == "once.reference"
        )
        for more in ({}, {"lora": LoRA()}, {"recompute": "full"})
    )
    assert plain == lora == again


@pytest.mark.parametrize("seq_len", [512, 4096, 32768])
def test_a_forward_pass_is_its_own_kernels(seq_len: int) -> None:
    """A third of the matmuls, two of attention's seven products, 0.4 of elementwise traffic: against the step's own parts."""
    one = job(seq_len=seq_len, step_tokens=8 * seq_len)
    parts = step.micro_batch(one, MACHINE)
    wanted = parts["compute"] / 3 + parts["attention"] / 3.5
    light = 0.4 * parts["elementwise"]  # the loss, a third forward, is among it
    each = work.forward_seconds(one, 8 * seq_len, MACHINE)
    assert wanted + 0.8 * light < each < wanted + 1.01 * light


def test_a_host_that_launches_slowly_bounds_the_forward_pass() -> None:
    tiny = catalog.models["smollm2-135m"]
    one = Job(tiny, count(tiny), Parallelism(), 64, 64)
    assert work.forward_seconds(one, 64, MACHINE) == pytest.approx(MACHINE.efficiency.layer_seconds * tiny.layers / 3)


def test_half_of_the_tensor_parallel_traffic_is_forward() -> None:
    one = job(layout=Parallelism(tp=8), step_tokens=8 * 4096)
    slow = Machine(NODE.replace(accelerator=NODE.accelerator.replace(scaleup_gb_s=45)), MACHINE.efficiency)
    extra = step.tensor_parallel(one, slow) - step.tensor_parallel(one, MACHINE)
    slower = work.forward_seconds(one, 4096, slow) - work.forward_seconds(one, 4096, MACHINE)
    assert slower == pytest.approx(extra / 2)


def test_ppo_scores_with_four_forward_passes_and_trains_with_none() -> None:
    """Policy, reference, critic and reward model, each once over what was sampled (arXiv 2203.02155 §3.5)."""
    recipe = PPO(model="llama-3.1-8b", reward="llama-3.1-8b", task=TASK, parallelism=SHARDED, batch_size=64)
    plan = estimate(recipe, NODE)
    once = Job(LLAMA, count(LLAMA), SHARDED, round(60 + 0.7 * 64), 64 * 105)
    forward = work.forward_seconds(once, plan.flops.total / plan.flops.per_token / plan.steps, MACHINE)
    assert plan.step_parts["scoring"] == pytest.approx(4 * forward, rel=0.02)
    assert plan.flops.per_token == pytest.approx(3 * plan.flops.forward)  # no reference in a training step
    alone = estimate(GRPO(model="llama-3.1-8b", task=TASK, parallelism=SHARDED, batch_size=64), NODE)
    assert plan.step_parts["compute"] == pytest.approx(alone.step_parts["compute"])


SAMPLED = {"model": "x", "task": TASK}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stage": "grpo", **SAMPLED, "max_new_tokens": 2048}, r"max_new_tokens=2048.*seq_len=1024"),
        ({"stage": "ppo", **SAMPLED, "reward": "x", "max_new_tokens": 1024}, r"max_new_tokens=1024.*raise seq_len"),
        ({"stage": "sft", "model": "x", "data": "y", "batch_size": 1, "parallelism": {"dp_shard": 8}}, r"batch_size=1 .* = 8; 8 is"),
        ({"stage": "sft", "model": "x", "data": "y", "batch_size": 12, "parallelism": {"dp_shard": 8}}, r"batch_size=12 .* 16 is"),
        ({"stage": "grpo", **SAMPLED, "prompts_per_step": 3}, "batch_size=16 does not divide prompts_per_step×group_size=24"),
        ({"stage": "reward", "model": "x", "data": "y", "cross_entropy": "chunked"}, "cross_entropy"),
    ],
)  # fmt: skip
def test_what_a_recipe_can_know_it_refuses(data: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        parse_recipe(data)


def test_packed_rows_need_no_whole_micro_batches_of_sequences() -> None:
    assert SFT(model="x", data="y", batch_size=12, packing=True, parallelism=SHARDED).batch_size == 12


def test_sequences_longer_than_the_model_do_not_fit() -> None:
    base = {
        "model": "llama-2-7b",
        "data": "x.jsonl",
        "seq_len": 65536,
        "mean_tokens": 500,
        "recompute": "full",
        "lora": LoRA(),
    }
    long = estimate(SFT(**base), NODE)
    assert not long.fits and "65536 tokens are longer than the model's max_seq_len=4096" in long.warnings[0]
    assert estimate(SFT(**base, longest_tokens=4096), NODE).fits
    assert estimate(
        SFT(**{**base, "seq_len": 8192}, longest_tokens=4096, packing=True), NODE
    ).fits  # positions begin anew
    sampled = GRPO(model="llama-2-7b", task=TASK, max_new_tokens=5000, seq_len=8192)
    assert any("5060 tokens are longer" in warning for warning in estimate(sampled, NODE).warnings)


def test_adapters_on_no_layer_do_not_fit_and_on_fewer_are_said() -> None:
    base = {"model": "llama-2-7b", "data": "x.jsonl"}
    nothing = estimate(SFT(**base, lora=LoRA(targets=("q_prj",))), NODE)
    assert not nothing.fits and "names no linear layer" in nothing.warnings[0] and "'all-linear'" in nothing.warnings[0]
    fewer = estimate(SFT(**base, lora=LoRA(targets=("q_prj", "v_proj"))), NODE)
    assert fewer.fits and any("no linear layer 'q_prj'" in warning for warning in fewer.warnings)
    assert not any("targets" in warning for warning in estimate(SFT(**base, lora=LoRA()), NODE).warnings)


SETTINGS = {
    "compile": True,
    "cross_entropy": "chunked",
    "offload": "optimizer",
    "optimizer": "adamw-8bit",
    "recompute": "full",
}


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_settings_that_only_the_planner_knows_are_planned_and_refused_before_a_run(name: str, value: object) -> None:
    recipe = SFT(model="llama-3.1-8b", data="x.jsonl", seq_len=4096, batch_size=64, parallelism=SHARDED)
    refuse_planned_only(recipe.replace(parallelism=Parallelism(dp_replicate=8)))
    other = recipe.replace(**{name: value})
    assert estimate(other, NODE).memory.peak_gib < estimate(recipe, NODE).memory.peak_gib
    with pytest.raises(LabError, match=f"{name}={value!r}: the trainer does not do this yet"):
        refuse_planned_only(other)


def test_execution_settings_are_no_other_experiment() -> None:
    recipe = SFT(model="x", data="y")
    for name in ("compile", "cross_entropy", "offload", "recompute"):
        assert recipe.replace(**{name: SETTINGS[name]}).science_hash == recipe.science_hash
    assert recipe.replace(optimizer="adamw-8bit").science_hash != recipe.science_hash


LONG = {"seq_len": 4096, "batch_size": 64, "parallelism": Parallelism(dp_shard=8, micro_batch_size=2)}
STAGES: dict[str, tuple[Recipe, set[str]]] = {
    "sft": (SFT(model="llama-3.1-8b", data="x.jsonl", **LONG), {"rows packed", "chunked cross entropy", "half the longest sample"}),
    "dpo": (Preference(model="llama-3.1-8b", data="x.jsonl", **LONG), {"reference computed beforehand", "fused cross entropy"}),
    "reward": (Reward(model="llama-3.1-8b", data="x.jsonl", **LONG), {"half the longest sample"}),
    "grpo": (reasoning(), {"a serving engine samples", "chunked cross entropy"}),
    "ppo": (PPO(model="llama-3.1-8b", reward="qwen3-0.6b", task=TASK, **LONG), {"a serving engine samples"}),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_post_training_has_what_ifs(stage: str) -> None:
    recipe, own = STAGES[stage]
    rows = {row[0]: row for row in switches(recipe, NODE).rows}
    common = {
        "compile",
        "optimiser states in host memory",
        "8-bit AdamW",
        "keep every matmul",
        "two replicas of the shards (HSDP)",
    }
    assert (own | common) <= rows.keys()
    assert ("rows packed" in rows) == (stage == "sft") and ("chunked cross entropy" in rows) == (stage != "reward")


def test_what_ifs_of_post_training_say_what_estimate_says() -> None:
    recipe, _ = STAGES["sft"]
    rows = {row[0]: row for row in switches(recipe, NODE).rows}
    plan, packed = estimate(recipe, NODE), estimate(recipe.replace(packing=True), NODE)
    assert rows["rows packed"][3] == f"{packed.step_seconds / plan.step_seconds - 1:+.0%}"
    assert rows["rows packed"][3].startswith("-")  # the same sequences without their padding
    chunked = estimate(recipe.replace(cross_entropy="chunked"), NODE)
    assert rows["chunked cross entropy"][2] == f"{chunked.memory.peak_gib - plan.memory.peak_gib:+.2g} GiB"
