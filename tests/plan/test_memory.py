"""Memory against closed forms: ZeRO's 16 bytes, Korthikanti's activations, pipelines, logits, key-value caches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_shapes import models

from lablib.plan import activations, memory, sampling
from lablib.plan.efficiency import GPU
from lablib.plan.job import Job
from lablib.plan.params import count, with_adapters
from lablib.specs import LoRA, ModelSpec, Parallelism, catalog

BF16 = activations.Style(width=2, stream=2, fused=True)
BASE = ModelSpec(layers=8, hidden=1024, heads=16, kv_heads=4, ffn=2816, vocab=32000)


def make(model: ModelSpec = BASE, **changes: object) -> Job:
    layout = {name: changes.pop(name) for name in list(changes) if name in Parallelism.model_fields}
    job = Job(model=model, params=count(model), layout=Parallelism(**layout), seq_len=2048, step_tokens=2**20)
    return replace(job, **changes)


def states(job: Job) -> float:
    return sum(memory.states(job).values())


def test_states_are_16_bytes_a_parameter() -> None:
    for name in ("llama-3-8b", "deepseek-v3", "bamba-9b"):
        model = catalog.models[name]
        assert states(make(model)) == 16 * count(model).total
    assert memory.states(make(BASE))["optimizer"] == 8 * count(BASE).total


@given(st.sampled_from([1, 2, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_states_shard_over_dp_shard_and_cp_and_split_over_tp(shard: int, cp: int, tp: int) -> None:
    whole = 16 * count(BASE).total
    assert states(make(dp_shard=shard, cp=cp, tp=tp)) == pytest.approx(whole / (shard * cp * tp))
    assert states(make(dp_replicate=4)) == whole


def test_pipeline_stages_hold_every_parameter_once() -> None:
    tied = BASE.replace(tied_embeddings=True)
    first, middle, last = (
        sum(memory.states(make(pp=4), first=f, last=la).values())
        for f, la in ((True, False), (False, False), (False, True))
    )
    assert first + 2 * middle + last == pytest.approx(16 * count(BASE).total)
    copy = 16 * tied.vocab * tied.hidden  # a tied head lies on another rank than its embedding: one copy more
    ends = sum(sum(memory.states(make(tied, pp=4), first=f, last=not f).values()) for f in (True, False))
    inner = sum(memory.states(make(tied, pp=4), first=False, last=False).values())
    assert ends + 2 * inner == pytest.approx(16 * count(tied).total + copy)


def test_attention_activations_agree_with_korthikanti() -> None:
    # arXiv 2205.05198 §4.1, bytes a token of a GPT block's attention without its s² terms: input 2h, Q and K 4h,
    # V 2h, output projection's input 2h, norm's input 2h; fused attention adds one fp32 a head, dropout is gone.
    model = ModelSpec(layers=1, hidden=512, heads=8, ffn=2048, vocab=100)
    kept = activations.attention(model, BF16)
    assert kept.wide + kept.split == (2 + 4 + 2 + 2 + 2) * 512 + 4 * 8


def test_a_gated_feed_forward_keeps_gate_up_and_product() -> None:
    kept = activations.dense(BASE, BF16)
    assert (kept.wide, kept.split) == (2 * 2 * 1024, 3 * 2 * 2816)
    eager = activations.dense(BASE, BF16._replace(fused=False))
    assert eager.split == 4 * 2 * 2816
    assert eager.wide > kept.wide


def test_tensor_parallelism_divides_only_what_it_splits() -> None:
    kept = activations.attention(BASE, BF16)
    assert kept.each(4) == kept.wide + kept.split / 4


@given(models())
def test_recomputation_never_stores_more(model: ModelSpec) -> None:
    none, selective, full = (memory.kept(make(model, recompute=kind)) for kind in ("none", "selective", "full"))
    assert full < selective and full < none
    assert memory.working(make(model)) <= memory.working(make(model, recompute="full"))


def test_full_recomputation_stores_layer_inputs_alone() -> None:
    assert memory.kept(make(recompute="full", dp_shard=2)) == 2048 * 2 * 1024 * BASE.layers  # FSDP2: a bf16 stream
    assert memory.kept(make(recompute="full")) == 2048 * 4 * 1024 * BASE.layers  # autocast: an fp32 stream


def test_a_pipelines_first_stage_holds_one_micro_batch_a_stage() -> None:
    whole = memory.kept(make())
    assert memory.kept(make(pp=4)) == pytest.approx(whole)  # a quarter of the layers, four micro-batches in flight
    assert memory.kept(make(pp=4), first=False) == pytest.approx(whole / 4)
    assert memory.kept(make(pp=4, step_tokens=2048)) == pytest.approx(whole / 4)  # only one micro-batch exists


def test_the_loss_holds_three_fp32_copies_of_the_logits() -> None:
    for precision in ("bf16", "fp32"):
        assert memory.logits(make(precision=precision)) == 2048 * 32000 * 12
    assert memory.logits(make(cp=4)) == 2048 / 4 * 32000 * 12


def test_only_a_sharded_job_gathers_and_only_an_unsharded_one_casts() -> None:
    assert memory.buffers(make()) == 2 * count(BASE).total
    assert memory.buffers(make(precision="fp32")) == 0
    params = count(BASE)
    layer = (params.total - params.embedding) / BASE.layers
    assert memory.buffers(make(recompute="full")) == pytest.approx(2 * (layer + params.parts["head"]))
    assert memory.buffers(make(dp_shard=8)) == pytest.approx(2 * (params.embedding + 3 * layer))


def test_adapters_leave_gradients_and_moments_of_the_base_out() -> None:
    params = with_adapters(BASE, LoRA(rank=8))
    parts = memory.states(replace(make(), params=params, adapters=True))
    assert parts["params"] == 4 * params.total
    assert parts["grads"] + parts["optimizer"] == pytest.approx(12 * params.trainable)
    assert params.trainable < params.total / 20


def test_a_reference_model_is_a_second_copy_unless_adapters_share_it() -> None:
    alone, pair = memory.states(make())["params"], memory.states(make(reference=True))["params"]
    shared = memory.states(make(reference=True, reference_shared=True))["params"]
    assert (pair, shared) == (2 * alone, alone)


def test_the_key_value_cache_is_llamas() -> None:
    assert sampling.cache_bytes(catalog.models["llama-3-8b"], 2) == 131072  # 2 · 32 layers · 8 heads · 128 · 2 bytes
    assert sampling.cache_bytes(catalog.models["bamba-9b"], 2) == 3 * 2 * 8 * 128 * 2


def test_gradients_meet_whole_activations_only_with_several_micro_batches() -> None:
    one, two = (memory.moments(make(step_tokens=2048 * n))["loss"]["grads"] for n in (1, 2))
    assert (one, two) == (0, 4 * count(BASE).total)
    last = memory.moments(make(step_tokens=2048))["optimiser step"]
    assert sum(last.values()) == (16 + 2) * count(BASE).total


def test_peak_is_the_sum_of_its_parts_on_the_fullest_rank() -> None:
    used = memory.peak(make(pp=4, dp_shard=8), GPU, 80)
    assert used.peak_gib == pytest.approx(sum(used.parts.values()))
    big_vocabulary = make(BASE.replace(vocab=2_000_000), pp=4, dp_shard=8, step_tokens=16384)
    assert memory.peak(big_vocabulary, GPU, 80).pipeline_rank == 3
    assert used.margin == pytest.approx(1 - used.peak_gib / 80)
