"""FLOPs against torch's own counter over real modules, and against published closed forms."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from plan_shapes import models

from lablib.plan import flops
from lablib.plan.params import count
from lablib.specs import ModelSpec, MoE, catalog

PEER = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEQUENCES, TOKENS = 2, 32


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
@given(models(("llama", "qwen3", "qwen3_moe", "deepseek_v3")))
def test_forward_flops_are_what_torch_counts(model: ModelSpec) -> None:
    ours = sum(flops.forward(model, TOKENS).values()) * SEQUENCES * TOKENS
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
