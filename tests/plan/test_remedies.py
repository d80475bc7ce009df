"""What a plan that does not fit is told: remedies that fit when they are applied, the search's own rules, and cautions."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lablib.plan import Estimate, candidates, estimate, thumb
from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    Cluster,
    LabError,
    LoRA,
    Parallelism,
    Preference,
    Pretrain,
    Recipe,
    Reward,
    Task,
    catalog,
)

NODE = Cluster(accelerator="h100-sxm")
TASK = Task(name="sums", generator="chain_sum")
LLAMA = catalog.models["llama-3.1-8b"]
MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])  # fmt: skip


def pretrain(**changes: object) -> Pretrain:
    base = {"model": "llama-3.1-8b", "tokens": "10B", "seq_len": 8192, "batch_tokens": 64 * 8192}
    return Pretrain(**{**base, **changes})


def said(plan: Estimate) -> str:
    """The words of the remedy; empty where there is none."""
    words = next((one for one in plan.warnings if " would fit" in one), "")
    return words.rpartition("; ")[2]


def applied(recipe: Recipe, words: str) -> Recipe:
    """The recipe with what the words name replaced."""
    named = re.findall(r"([a-z_.]+)=('[^']*'|\w+)", words.partition(" would fit")[0])
    values = {name: ast.literal_eval(value) for name, value in named}
    inside = {name: value for name, value in values.items() if name in Parallelism.model_fields}
    rest = {name: value for name, value in values.items() if name not in inside}
    if "optimizer.kind" in rest:
        assert isinstance(recipe, Pretrain)
        rest["optimizer"] = recipe.optimizer.replace(kind=rest.pop("optimizer.kind"))
    return recipe.replace(**rest, parallelism=recipe.parallelism.replace(**inside))


def check(recipe: Recipe, cluster: Cluster) -> str:
    """Apply the remedy that the plan names, if any, and hold it to its word."""
    plan = estimate(recipe, cluster)
    words = said(plan)
    if words:
        mended = applied(recipe, words)
        more = re.search(r"on (\d+) GPUs", words)
        assert mended.gpus == (int(more[1]) if more else recipe.gpus)
        assert (f"(the cluster has {cluster.gpus})" in words) == (bool(more) and mended.gpus > cluster.gpus)
        enough = cluster.replace(nodes=max(cluster.nodes, -(-mended.gpus // cluster.gpus_per_node)))
        assert not plan.fits and estimate(mended, enough).fits, words
    return words


MODELS = st.sampled_from(["qwen3-0.6b", "llama-3.1-8b", "llama-2-70b", "qwen3-30b-a3b"])
CLUSTERS = st.builds(
    lambda name, nodes, host: Cluster(accelerator=name, nodes=nodes, host_memory_gib=host),
    st.sampled_from(["h100-sxm", "a100-sxm-40gb"]), st.sampled_from([1, 8]), st.sampled_from([None, 400.0]),
)  # fmt: skip
LAYOUTS = st.builds(
    Parallelism,
    dp_shard=st.sampled_from([1, 2, 8]), dp_replicate=st.sampled_from([1, 2]), tp=st.sampled_from([1, 2]),
    micro_batch_size=st.sampled_from([1, 2, 4]),
).flatmap(lambda it: st.sampled_from([it, it.replace(ep=it.dp_shard * it.tp)]))  # fmt: skip
SHARED = {"batch_size": st.just(64), "seq_len": st.sampled_from([1024, 4096]), "parallelism": LAYOUTS,
          "recompute": st.sampled_from(["none", "selective", "full"])}  # fmt: skip
TUNED = {**SHARED, "model": MODELS, "data": st.just("x.jsonl"), "lora": st.sampled_from([None, LoRA()])}
SAMPLED = {**SHARED, "model": MODELS, "task": st.just(TASK), "max_new_tokens": st.sampled_from([64, 1000]),
           "engine": st.sampled_from(["transformers", "vllm"])}  # fmt: skip
RECIPES: st.SearchStrategy[Recipe] = st.one_of(
    st.builds(pretrain, model=MODELS, seq_len=st.sampled_from([2048, 4096]), parallelism=LAYOUTS,
              cross_entropy=st.sampled_from(["full", "fused"]), offload=st.sampled_from(["none", "optimizer"])),
    st.builds(SFT, packing=st.booleans(), **TUNED),
    st.builds(Preference, precompute_reference=st.booleans(), **TUNED),
    st.builds(Reward, **TUNED),
    st.builds(GRPO, beta=st.sampled_from([0.0, 0.1]), prompts_per_step=st.sampled_from([8, 128]), **SAMPLED),
    st.builds(PPO, reward=MODELS, **SAMPLED),
)  # fmt: skip


@MANY
@given(RECIPES, CLUSTERS)
def test_a_remedy_that_is_applied_fits(recipe: Recipe, cluster: Cluster) -> None:
    assume(recipe.gpus <= cluster.gpus)
    check(recipe, cluster)


def test_remedies_reach_every_kind_of_recipe() -> None:
    """The property above would hold of a planner without remedies."""
    one = {"parallelism": Parallelism(dp_shard=8, micro_batch_size=2), "batch_size": 64}
    data = {**one, "model": "llama-3.1-8b", "data": "x.jsonl", "seq_len": 8192}
    sampled = {**one, "model": "llama-3.1-8b", "task": TASK, "seq_len": 8192, "max_new_tokens": 8000, "recompute": "full"}  # fmt: skip
    assert "micro_batch_size=1 and recompute='selective'" in check(SFT(**data), NODE)
    assert "recompute" in check(Preference(**data), NODE)
    assert "recompute" in check(Reward(**data), NODE)
    assert "engine='vllm'" in check(GRPO(**sampled, prompts_per_step=256), NODE)
    assert "engine='vllm'" in check(PPO(**sampled, prompts_per_step=2048, reward="qwen3-0.6b"), NODE)


def test_the_longest_sample_decides_not_the_mean() -> None:
    recipe = SFT(model="llama-3.1-8b", data="x.jsonl", batch_size=64, mean_tokens=500, longest_tokens=32768, seq_len=32768,
                 parallelism=Parallelism(dp_shard=8, micro_batch_size=2))  # fmt: skip
    assert "recompute='full'" in check(recipe, NODE)


def test_a_sampler_that_is_too_large_is_spread() -> None:
    recipe = GRPO(model="deepseek-v3", task=TASK, engine="vllm", parallelism=Parallelism(dp_shard=512, ep=8), recompute="full",
                  prompts_per_step=64, batch_size=512, max_new_tokens=512)  # fmt: skip
    assert "sampler_tp=32 would fit" in check(recipe, NODE.replace(nodes=64))


def test_remedies_keep_layouts_of_experts_whole() -> None:
    recipe = pretrain(
        model="qwen3-30b-a3b", seq_len=4096, batch_tokens=64 * 4096, parallelism=Parallelism(dp_shard=8, ep=8)
    )
    assert "would fit" in check(recipe, NODE.replace(nodes=8))


def test_remedies_stay_on_the_cluster_where_they_can() -> None:
    large = pretrain(model="llama-3-70b", parallelism=Parallelism(dp_shard=8))
    assert "dp_shard=32 would fit on 32 GPUs" in check(large, NODE.replace(nodes=8))
    assert "(the cluster has 8)" in check(large, NODE)
    copies = pretrain(seq_len=2048, parallelism=Parallelism(dp_replicate=8))
    assert "dp_shard=8" in check(copies, NODE) and "GPUs" not in check(copies, NODE)
    alone = pretrain(seq_len=2048, batch_tokens=2048, parallelism=Parallelism())
    assert check(alone, NODE).startswith("recompute='full', cross_entropy='chunked' and offload='optimizer'")


LAYOUT = {"tp": [1, 2, 3, 8, 16], "pp": [1, 2, 8, 33], "virtual_stages": [1, 2, 3], "cp": [1, 2, 3], "dp_shard": [1, 2]}


@MANY
@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in LAYOUT.items()}), st.integers(1, 40))
def test_estimate_and_the_layout_search_refuse_the_same_layouts(degrees: dict[str, int], sequences: int) -> None:
    assume(degrees["pp"] > 1 or degrees["virtual_stages"] == 1)
    layout = Parallelism(**degrees)
    row = {name: np.array([getattr(layout, name)]) for name in candidates.FIELDS}
    batch = sequences * 8192 * layout.dp
    broken = any(bool(wrong.any()) for _, wrong in candidates.obstacles(LLAMA, row, batch, 8192))
    try:
        recipe = pretrain(parallelism=layout, batch_tokens=batch, recompute="full")
    except LabError:
        assert broken
        return
    plan = estimate(recipe, Cluster(accelerator="h100-sxm", nodes=1024))
    words = ("does not divide", "is more than layers", "in multiples of pp")
    assert broken == any(word in warning for warning in plan.warnings for word in words)


def test_pipelines_that_cannot_be_cut_are_said_with_what_can() -> None:
    cut = estimate(pretrain(parallelism=Parallelism(pp=8, virtual_stages=3)), NODE)
    assert not cut.fits and "pp=8 × virtual_stages=3 does not divide layers=32; take virtual_stages=2" in cut.warnings
    odd = pretrain(parallelism=Parallelism(pp=8, virtual_stages=2), batch_tokens=3 * 8192)
    assert any("multiples of pp=8, and a step has 3" in warning for warning in estimate(odd, NODE).warnings)
    rows = SFT(model="llama-3.1-8b", data="x.jsonl", batch_size=12, parallelism=Parallelism(pp=8, virtual_stages=2))
    assert any("multiples of pp=8, and a step has 12" in warning for warning in estimate(rows, NODE).warnings)


def test_a_rack_of_one_nvlink_domain_is_crossed_by_no_tensor_parallelism() -> None:
    rack = Cluster(accelerator="gb200", nodes=2, gpus_per_node=4)
    assert not any("crosses" in one for one in estimate(pretrain(parallelism=Parallelism(tp=8)), rack).warnings)
    columns = {name: np.array([8 if name == "tp" else 1]) for name in candidates.FIELDS}
    assert thumb.rule_for(catalog.models["llama-2-70b"]).allows(columns, rack).all()
    assert not thumb.rule_for(catalog.models["llama-2-70b"]).allows(columns, NODE.replace(gpus_per_node=4)).any()


def test_what_tensor_parallelism_leaves_whole_is_said() -> None:
    """By transformers' own plan, which names no matrix of DeepSeek-V3's attention."""
    from transformers import DeepseekV3Config

    assert not any("attn" in name for name in DeepseekV3Config.base_model_tp_plan)
    model, nodes = catalog.models["deepseek-v3"], NODE.replace(nodes=32)
    for tp in (1, 8):
        plan = estimate(pretrain(model=model, parallelism=Parallelism(tp=tp, dp_shard=256 // tp, ep=64), batch_tokens="4M"), nodes)  # fmt: skip
        assert any("latent attention whole" in one for one in plan.warnings) == (tp > 1)


def test_tensor_parallelism_over_the_network_is_priced() -> None:
    cluster, base = NODE.replace(nodes=8), {"model": "llama-2-7b", "seq_len": 4096, "batch_tokens": 64 * 4096}
    wide = estimate(pretrain(**base, parallelism=Parallelism(tp=32)), cluster)
    inside = estimate(pretrain(**base, parallelism=Parallelism(tp=8, dp_shard=4)), cluster)
    told = next(warning for warning in wide.warnings if "crosses" in warning)
    assert "crosses domains of 8" in told and "tp=8 and dp_shard=4" in told
    assert f"{wide.step_seconds / inside.step_seconds:.2g} times as long" in told


def test_host_memory_is_told_by_the_node_and_judged_where_it_is_known() -> None:
    recipe = GRPO(model="deepseek-v3", task=TASK, engine="vllm", parallelism=Parallelism(dp_shard=512, ep=8), recompute="full",
                  prompts_per_step=64, batch_size=512, sampler_tp=32)  # fmt: skip
    cluster = NODE.replace(nodes=64)
    plan = estimate(recipe, cluster)
    told = f"needs {8 * plan.memory.host_gib:,.0f} GiB of host memory a node"
    assert plan.fits and any(warning.startswith(told) for warning in plan.warnings)
    assert 8 * plan.memory.host_gib == pytest.approx(8 * 2 * plan.params.total / 32 / 2**30)
    small = estimate(recipe, cluster.replace(host_memory_gib=100))
    assert not small.fits and "which has 100" in small.warnings[0]
    assert estimate(recipe, cluster.replace(host_memory_gib=1000)).fits


def test_only_dense_bf16_pretraining_is_held_to_the_band_of_dense_bf16_runs() -> None:
    def low(**changes: object) -> bool:
        layout = Parallelism(dp_shard=8, micro_batch_size=1)
        recipe = pretrain(seq_len=2048, batch_tokens=64 * 2048, recompute="full", parallelism=layout, **changes)
        return any("low: MFU" in warning for warning in estimate(recipe, NODE).warnings)

    assert low(model="llama-3.2-1b")
    assert not low(model="llama-3.2-1b", precision="fp8") and not low(model="qwen3-30b-a3b")


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("tpuv5p", "bf16", "planned, not runnable"),
        ("trainium2", "bf16", "planned, not runnable"),
        ("v100-sxm", "bf16", "no tensor cores for bf16"),
        ("t4", "bf16", "no tensor cores for bf16"),
        ("v100-sxm", "fp32", ""),
        ("h100-sxm", "bf16", ""),
    ],
)
def test_what_an_accelerator_cannot_do_is_said(name: str, precision: str, words: str) -> None:
    recipe = SFT(model="qwen3-0.6b", data="x.jsonl", precision=precision)
    told = [one for one in estimate(recipe, Cluster(accelerator=name)).warnings if "planned" in one or "tensor" in one]
    assert [words in one for one in told] == [True] * bool(words)
