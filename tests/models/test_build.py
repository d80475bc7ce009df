"""Initial weights: their spread by role, depth scaling, and the same draw every time."""

from __future__ import annotations

import math

import pytest
import torch

from lablib.models.build import build_model, is_residual_projection
from lablib.specs import SSM, ModelSpec, MoE

LAYERS, STD = 3, 0.05
DENSE = ModelSpec(family="qwen3", layers=LAYERS, hidden=96, heads=4, kv_heads=2, ffn=256, vocab=500, init_std=STD)
FAMILIES = {
    "llama": DENSE.replace(family="llama"),
    "qwen3": DENSE,
    "tied": DENSE.replace(tied_embeddings=True),
    "experts": DENSE.replace(family="qwen3_moe", moe=MoE(experts=4, top_k=2, expert_ffn=128)),
    "hybrid": DENSE.replace(
        family="bamba", layers=3, ssm=SSM(heads=12, head_dim=16, state=16, chunk=16, attention_layers=(1,))
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_spread_of_every_matrix(name: str) -> None:
    model = build_model(FAMILIES[name], seed=0)
    checked = 0
    for key, weight in model.named_parameters():
        if weight.ndim < 2 or "conv1d" in key:
            continue
        wanted = STD / math.sqrt(2 * LAYERS) if is_residual_projection(key, weight) else STD
        numbers = weight.detach()  # five standard errors of a sample's deviation and mean
        assert float(numbers.std()) == pytest.approx(wanted, rel=5 / math.sqrt(2 * weight.numel())), key
        assert abs(float(numbers.mean())) < 5 * wanted / math.sqrt(weight.numel()), key
        checked += 1
    assert checked > 2 * LAYERS


@pytest.mark.parametrize("name", FAMILIES)
def test_two_residual_projections_a_layer(name: str) -> None:
    model = build_model(FAMILIES[name], seed=0)
    assert sum(is_residual_projection(key, weight) for key, weight in model.named_parameters()) == 2 * LAYERS


def test_norms_begin_at_one_and_biases_at_zero() -> None:
    model = build_model(DENSE.replace(attention_bias=True), seed=0)
    for key, weight in model.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.full_like(weight, float("norm" in key))), key


def test_seed_decides_the_draw() -> None:
    one, again, other = (build_model(DENSE, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_tied_weights_stay_tied() -> None:
    model = build_model(FAMILIES["tied"], seed=0)
    assert model.lm_head.weight is model.model.embed_tokens.weight
