"""AdamW's groups, and its update against the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import MODEL

from lablib.models.build import build_model
from lablib.models.mup import hidden_matrices
from lablib.specs import SSM, ModelSpec, MoE, Optimizer
from lablib.train.optimizer import build_optimizer, check_partition, decays, parameter_groups, set_learning_rate

EXPERTS = ModelSpec(
    family="qwen3_moe", layers=1, hidden=32, heads=2, ffn=48, vocab=64, moe=MoE(experts=4, top_k=2, expert_ffn=24)
)


def test_what_decays_by_name() -> None:
    found = decays(build_model(MODEL, 0))
    kept = {name.removeprefix("model.layers.0.") for name, decay in found.items() if not decay and ".1." not in name}
    assert kept == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_norm.weight",
        "self_attn.k_norm.weight",
    }
    assert found["lm_head.weight"] and found["model.layers.0.mlp.gate_proj.weight"]


def test_a_tied_head_is_the_embedding_and_counts_once() -> None:
    model = build_model(MODEL.replace(tied_embeddings=True), 0)
    assert not decays(model)["model.embed_tokens.weight"]
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.1)) == len(list(model.parameters()))


def test_biases_do_not_decay_and_experts_do() -> None:
    assert not decays(build_model(MODEL.replace(attention_bias=True), 0))["model.layers.0.self_attn.q_proj.bias"]
    found = decays(build_model(EXPERTS, 0))
    assert all(decay for name, decay in found.items() if ".experts." in name)


def test_recurrences_do_not_decay_and_are_no_matrices_of_muons() -> None:
    mamba = SSM(heads=64, head_dim=1, state=8, step_rank=2, attention_layers=())
    shape: dict[str, Any] = {"layers": 2, "hidden": 32, "ffn": 48, "vocab": 64}
    jamba = build_model(ModelSpec(family="jamba", heads=2, ssm=mamba, **shape), 0)
    rwkv = build_model(ModelSpec(family="rwkv", **shape), 0)
    kept = {name.removeprefix("model.layers.0.mamba.") for name, decay in decays(jamba).items() if not decay}
    assert {"A_log", "D", "dt_proj.bias", "conv1d.bias", "b_layernorm.weight"} <= kept
    assert not {"conv1d.weight", "dt_proj.weight", "x_proj.weight", "in_proj.weight", "out_proj.weight"} & kept
    mixes = {"time_decay", "time_first", "time_mix_key", "time_mix_value", "time_mix_receptance"}
    kept = {name.removeprefix("rwkv.blocks.1.attention.") for name, decay in decays(rwkv).items() if not decay}
    assert mixes <= kept and not any(name.startswith(("key", "value", "receptance", "output")) for name in kept)
    for model in (jamba, rwkv):
        inside = hidden_matrices(model)
        assert inside and not any("A_log" in name or "time_mix" in name or "conv" in name for name in inside)


@pytest.mark.parametrize("mistake", ["left out", "twice"])
def test_planted_wrong_groups_are_refused(mistake: str) -> None:
    model = build_model(MODEL, 0)
    weights = list(model.parameters())
    wrong = weights[1:] if mistake == "left out" else [*weights, weights[0]]
    with pytest.raises(RuntimeError, match="not a partition"):
        check_partition(model, wrong)


def test_one_update_is_the_papers_formula() -> None:
    model = torch.nn.Linear(3, 2)
    settings = Optimizer(learning_rate=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5)
    optimizer = build_optimizer(model, settings)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    for name, weight in model.named_parameters():
        gradient, decay = weight.grad, 0.5 if name == "weight" else 0.0
        wanted = before[name] * (1 - 0.01 * decay) - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(weight.detach(), wanted)
