"""FLOPs against torch's own counter over real modules, and against published closed forms."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_shapes import FAMILIES, HYBRID, models

from lablib.plan import anatomy, flops
from lablib.plan.params import count
from lablib.specs import ModelSpec, MoE, catalog
from lablib.specs.recipe import Recompute

PEER = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEQUENCES, TOKENS = 2, 32
POLICIES = ("none", "selective", "selective-op", "selective-layer", "budget", "attention", "full")


def counted(model: ModelSpec, backward: bool) -> Counter[str]:
    """FLOPs by operator that torch counts in a pass over SEQUENCES × TOKENS tokens; eager attention computes the whole
    square of scores, and experts one by one are plain matmuls that the counter knows."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    made = AutoModelForCausalLM.from_config(model.to_hf(), attn_implementation="eager", experts_implementation="eager")
    ids = torch.randint(0, model.vocab, (SEQUENCES, TOKENS))
    with FlopCounterMode(display=False) as counter:
        logits = made(ids, use_cache=False).logits
        if backward:
            logits.sum().backward()
    return Counter({str(op): value for op, value in counter.get_flop_counts()["Global"].items()})


@PEER
@given(models(tuple(family for family in FAMILIES if family not in HYBRID)))
def test_forward_flops_are_what_torch_counts(model: ModelSpec) -> None:
    parts = flops.forward(model, TOKENS, TOKENS)
    parts.pop("scan", None)  # RWKV's is elementwise, which torch does not count
    ours = sum(parts.values()) * SEQUENCES * TOKENS
    assert ours == sum(counted(model, backward=False).values())


def test_a_training_step_is_three_forward_passes() -> None:
    model = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=128)
    ours = sum(flops.forward(model, TOKENS).values()) * SEQUENCES * TOKENS * (1 + flops.backward_ratio(adapters=False))
    assert ours == sum(counted(model, backward=True).values())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(("bamba",)))
def test_a_hybrids_projections_are_what_torch_counts(model: ModelSpec) -> None:
    # The reference scan multiplies elementwise, which torch does not count: only plain matmuls can be compared.
    ours = sum(flops.matmuls(model).values()) * SEQUENCES * TOKENS
    found = counted(model, backward=False)
    assert ours == found["aten.mm"] + found["aten.addmm"]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(("jamba",)))
def test_a_jambas_products_are_what_torch_counts(model: ModelSpec) -> None:
    assert model.ssm is not None
    read = 2.0 * model.ssm.state * anatomy.ssm_inner(model) * anatomy.layers(model).ssm  # of the scan, a product
    ours = (sum(flops.matmuls(model).values()) + flops.scores(model, TOKENS) + read) * SEQUENCES * TOKENS
    found = counted(model, backward=False)
    assert ours == sum(found.values()) - found["aten.convolution"]


RWKV = {"169m": 2.613e8, "430m": 7.573e8, "1.5b": 2.823e9, "3b": 5.710e9, "7b": 1.437e10, "14b": 2.778e10}
"""FLOPs of a token's matmuls (arXiv 2305.13048 Table 2)."""


@pytest.mark.parametrize("size", RWKV)
def test_rwkvs_matmuls_are_the_published_ones(size: str) -> None:
    model = catalog.models[f"rwkv-4-{size}"]
    assert sum(flops.matmuls(model).values()) == pytest.approx(RWKV[size], rel=3e-4)
    assert flops.forward(model, 4096.0) == flops.forward(model, 65536.0)  # linear in the length


def test_a_hybrid_pays_for_length_in_its_attention_layers_alone() -> None:
    jamba, long, short = catalog.models["jamba-v0.1"], 131072.0, 2048.0
    grown = {part: value - flops.forward(jamba, short)[part] for part, value in flops.forward(jamba, long).items()}
    assert {part for part, value in grown.items() if value} == {"scores"}
    assert grown["scores"] == 4 * 4 * 4096 * (long - short)


def test_the_scan_is_mamba_2s_closed_form() -> None:
    model = catalog.models["bamba-9b"]
    assert model.ssm is not None
    heads, width, state, chunk = model.ssm.heads, model.ssm.head_dim, model.ssm.state, model.ssm.chunk
    inner = heads * width
    assert inner == 2 * model.hidden
    token = 2 * chunk * state + 2 * chunk * inner + 4 * inner * state + 2 * 4 * (inner + 2 * state)
    assert flops.scan(model) == (32 - 3) * token


@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3.1-405b", "qwen3-8b"])
def test_without_attention_and_norms_training_is_6n(name: str) -> None:
    model = catalog.models[name]
    params = count(model)
    matrices = params.total - params.parts["norm"] - params.parts["embedding"]
    assert 3 * sum(flops.matmuls(model).values()) == 6 * matrices


def test_megatrons_formula_for_a_gpt_holds() -> None:
    # 72·B·s·L·h²·(1 + s/6h + V/12Lh) without recomputation (arXiv 2104.04473 eq. 3 less the recomputed forward pass);
    # attention counted in full, a two-matrix feed-forward of 4h written as a gated one of 8h/3.
    layers, hidden, seq, vocab = 12, 768, 1024, 51200
    model = ModelSpec(layers=layers, hidden=hidden, heads=12, ffn=8 * hidden // 3, vocab=vocab)
    ours = 3 * sum(flops.forward(model, seq).values())
    paper = 72 * layers * hidden**2 * (1 + seq / (6 * hidden) + vocab / (12 * layers * hidden))
    assert ours == pytest.approx(paper, rel=1e-12)


def test_causal_attention_counts_each_pair_once() -> None:
    model = ModelSpec(layers=1, hidden=8, heads=2, ffn=8, vocab=8)
    pairs = sum(position + 1 for position in range(100))
    assert 100 * flops.scores(model, flops.causal_context(100)) == 4 * 8 * pairs


def test_only_chosen_experts_are_computed() -> None:
    base = {"family": "qwen3_moe", "layers": 2, "hidden": 64, "heads": 4, "ffn": 96, "vocab": 128}
    few = ModelSpec(moe=MoE(experts=8, top_k=2, expert_ffn=32), **base)
    many = ModelSpec(moe=MoE(experts=64, top_k=2, expert_ffn=32), **base)
    assert flops.matmuls(few)["experts"] == flops.matmuls(many)["experts"] == 2 * 2 * 3 * 2 * 64 * 32


def test_full_recomputation_repeats_the_layers_and_never_the_head() -> None:
    model = catalog.models["llama-3-8b"]
    parts = flops.forward(model, 4096.5)
    assert flops.recomputed(parts, "full") == sum(parts.values()) - parts["head"]
    assert flops.recomputed(parts, "none") == flops.recomputed(parts, "selective") == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_a_window_cuts_what_each_token_sees(seq: int, window: int) -> None:
    seen = sum(min(position, window) for position in range(1, seq + 1)) / seq
    assert flops.windowed_context(seq, window) == pytest.approx(seen, rel=1e-12)
    assert flops.windowed_context(seq, None) == flops.causal_context(seq)


def test_no_context_costs_no_scores() -> None:
    assert flops.scores(catalog.models["gemma-3-1b"], 0.0) == flops.windowed_context(0, 16) == 0


def test_only_windowed_layers_see_less() -> None:
    base = {"layers": 7, "hidden": 64, "heads": 4, "ffn": 96, "vocab": 128}
    whole = flops.scores(ModelSpec(**base), 50.5) / 7
    cut = 4 * 64 * sum(min(i, 16) for i in range(1, 101)) / 100
    assert whole == 4 * 64 * 50.5
    for every, wide in ((0, 0), (2, 3), (3, 2), (7, 1), (9, 0)):
        model = ModelSpec(**base, sliding_window=16, window_every=every)
        assert flops.scores(model, 50.5) == pytest.approx(wide * whole + (7 - wide) * cut, rel=1e-12)
    assert flops.scores(ModelSpec(**base, sliding_window=100), 50.5) == pytest.approx(7 * whole, rel=1e-12)


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-3-4b", "gpt-oss-120b", "deepseek-v3", "bamba-9b"])
def test_a_grid_of_contexts_is_each_of_them(name: str) -> None:
    model, contexts = catalog.models[name], np.array([10.5, 1024.5, 65536.5])
    grid = flops.forward(model, contexts)
    for i, context in enumerate(contexts):
        one = flops.forward(model, float(context))
        assert list(one) == list(grid)
        for part, value in one.items():
            assert np.broadcast_to(grid[part], 3)[i] == pytest.approx(value, rel=1e-12)
        for policy in POLICIES:
            assert np.broadcast_to(flops.recomputed(grid, policy), 3)[i] == pytest.approx(flops.recomputed(one, policy))


def test_each_policy_repeats_what_it_says() -> None:
    model = catalog.models["llama-3-8b"]
    parts = flops.forward(model, 4096.5)
    assert flops.recomputed(parts, "selective-layer") == flops.recomputed(parts, "full") / 2
    assert flops.recomputed(parts, "attention") == parts["scores"]
    shapes = {m.name: 2.0 * m.rows * m.cols * m.copies for m in anatomy.matrices(model)}
    every_second = shapes["k_proj"] + shapes["o_proj"] + shapes["up_proj"]  # of q, k, v, o, gate, up, down
    assert flops.recomputed(parts, "selective-op") == pytest.approx(every_second, rel=1e-12)
    plain = catalog.models["megatron24-7.1b"]
    shapes = {m.name: 2.0 * m.rows * m.cols * m.copies for m in anatomy.matrices(plain)}
    again = flops.recomputed(flops.forward(plain, 2048.5), "selective-op", gated=False)
    assert again == pytest.approx(shapes["k_proj"] + shapes["o_proj"] + shapes["down_proj"], rel=1e-12)
    assert set(POLICIES) == set(get_args(Recompute))
