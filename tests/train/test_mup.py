"""μP: sizes of activations and the best learning rate stay as the model grows; without it they do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lablib.models.build import build_model
from lablib.models.mup import hidden_matrices, scale_initial, scales
from lablib.models.stages import cut
from lablib.plan.tuning import valley
from lablib.specs import LabError, ModelSpec, MoE, Optimizer, Parallelism, Pretrain
from lablib.specs.model import MLA
from lablib.specs.recipe import MuP
from lablib.train.able import check
from lablib.train.coordinates import begun, coordinate_check, growth
from lablib.train.optimizer import build_optimizer, set_learning_rate

TUNED = ModelSpec(family="llama", layers=2, hidden=64, heads=4, ffn=128, vocab=128, init_std=0.1)
WIDTHS = (64, 128, 256)
EXPERTS = ModelSpec(family="qwen3_moe", layers=2, hidden=64, heads=4, ffn=128, vocab=128, moe=MoE(experts=4, top_k=2, expert_ffn=64))  # fmt: skip


def test_widened_keeps_heads_and_proportions() -> None:
    wide = TUNED.widened(256)
    assert (wide.hidden, wide.heads, wide.kv_heads, wide.head_dim, wide.ffn) == (256, 16, 16, 16, 512)


def test_factors_by_the_papers_table() -> None:
    spec = TUNED.widened(256).replace(layers=8)
    found = scales(build_model(spec, 0), spec, MuP(hidden=64, layers=2))
    layer = "model.layers.0."
    table = {
        "model.embed_tokens.weight": (1, 1),
        f"{layer}input_layernorm.weight": (1, 1),
        f"{layer}self_attn.q_proj.weight": (1 / 2, 1 / 4),
        f"{layer}mlp.up_proj.weight": (1 / 2, 1 / 4),
        f"{layer}self_attn.o_proj.weight": (1 / 4, 1 / 16),
        f"{layer}mlp.down_proj.weight": (1 / 4, 1 / 16),
        "lm_head.weight": (1 / 4, 1 / 4),
    }
    assert {name: (found[name].initial, found[name].rate) for name in table} == table


def test_routers_read_out_and_experts_are_inside() -> None:
    spec = EXPERTS.widened(128)
    found = scales(build_model(spec, 0), spec, MuP(hidden=64))
    assert found["model.layers.0.mlp.gate.weight"].initial == 1 / 2
    experts = [scale for name, scale in found.items() if ".experts." in name]
    assert experts and all(scale.initial == pytest.approx(2**-0.5) for scale in experts)


def test_the_tuned_model_is_as_it_was() -> None:
    model, same = build_model(TUNED, 0), build_model(TUNED, 0)
    scale_initial(model, TUNED, MuP(hidden=64, layers=2))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("virtual", [1, 2])
def test_stages_together_are_scaled_as_the_whole(virtual: int) -> None:
    spec, tuned = TUNED.widened(128).replace(layers=4), MuP(hidden=64, layers=2)
    stages = [build_model(spec, 0) for _ in range(2)]
    for rank, stage in enumerate(stages):
        cut(stage, rank, Parallelism(pp=2, virtual_stages=virtual))
    whole = build_model(spec, 0)
    assert set[str]().union(*map(hidden_matrices, stages)) == hidden_matrices(whole)
    assert scales(stages[0], spec, tuned) | scales(stages[1], spec, tuned) == scales(whole, spec, tuned)


@pytest.mark.parametrize("kind", ["muon", "soap"])
def test_every_stage_has_its_rules(kind: Any) -> None:
    for rank in range(2):
        stage = build_model(TUNED, 0)
        cut(stage, rank, Parallelism(pp=2))
        build_optimizer(stage, Optimizer(kind=kind))


@pytest.mark.parametrize("kind", ["adamw", "lion"])
def test_rates_multiply_and_decay_stays(kind: Any) -> None:
    spec = TUNED.widened(256)
    model = build_model(spec, 0)
    rates = {name: scale.rate for name, scale in scales(model, spec, MuP(hidden=64)).items()}
    optimizer = build_optimizer(model, Optimizer(kind=kind, weight_decay=0.1), rates)
    set_learning_rate(optimizer, 0.5)
    inside = {id(weight) for name, weight in model.named_parameters() if name in hidden_matrices(model)}
    for group in optimizer.param_groups:
        if id(group["params"][0]) in inside:
            assert group["lr"] == 0.5 / 4
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.5 * 0.1)


def test_sizes_stay_with_mup_and_grow_without() -> None:
    with_mup = growth(coordinate_check(TUNED, WIDTHS, MuP(hidden=64)))
    without = growth(coordinate_check(TUNED, WIDTHS, None))
    assert max(with_mup.values()) < 0.15
    assert without["logits"] > 0.4 and without["blocks"] > 0.4


def test_a_recipe_with_mup() -> None:
    base = {"model": TUNED, "tokens": "1M", "seq_len": 64, "batch_tokens": 1024}
    plain = Pretrain(**base)
    assert "mup" not in plain.science() and "z_loss" not in plain.science()
    assert plain.science_hash != Pretrain(**base, mup=MuP(hidden=64)).science_hash
    with pytest.raises(LabError, match="tied_embeddings=False"):
        Pretrain(**{**base, "model": TUNED.replace(tied_embeddings=True)}, mup=MuP(hidden=64))
    with pytest.raises(LabError, match="adamw"):
        Pretrain(**base, mup=MuP(hidden=64), optimizer=Optimizer(kind="muon"))


LATENT = MLA(kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            EXPERTS.replace(family="deepseek_v3", mla=LATENT, head_dim=24, qk_norm=False),
            "latent vectors keep their width",
        ),
        (TUNED.replace(family="gpt2", tied_embeddings=False), "last matrices of its blocks"),
    ],
)
def test_what_does_not_scale_with_the_width_is_refused(model: ModelSpec, reason: str) -> None:
    settings: dict[str, Any] = {"model": model, "tokens": "1M", "seq_len": 64, "batch_tokens": 1024}
    check(Pretrain(**settings))
    with pytest.raises(LabError, match=f"{reason}.*leave mup out"):
        check(Pretrain(**settings, mup=MuP(hidden=64)))


SUMS = ModelSpec(family="llama", layers=1, hidden=32, heads=2, ffn=64, vocab=32, init_std=0.1)


def best(hidden: int, powers: range, tuned: MuP | None) -> float:
    """log₂ of the best rate for adding two numbers modulo 23: 60 steps at each power of two, mean loss of the last ten."""

    def loss(rate: float) -> float:
        model, optimizer = begun(SUMS.widened(hidden), tuned, rate)
        draw, losses = torch.Generator().manual_seed(0), []
        for _ in range(60):
            ids = torch.randint(23, (128, 2), generator=draw)
            logits = model(input_ids=ids, use_cache=False).logits[:, 1]
            found = torch.nn.functional.cross_entropy(logits, ids.sum(1) % 23)
            found.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(found.detach()))
        return sum(losses[-10:]) / 10

    rates = np.array([2.0**power for power in powers])
    found = valley(hidden, rates, np.array([loss(rate) for rate in rates]))
    assert not found.edge and found.loss < math.log(23) / 2, "it has learned something at the best rate, between others"
    return math.log2(found.rate)


@pytest.mark.slow
def test_the_best_rate_transfers_with_mup_only() -> None:
    """Eight times as wide: the best rate stays under μP and, the planted bug, moves at least to a third without."""
    narrow = best(32, range(-9, -4), None)
    assert abs(best(256, range(-9, -4), MuP(hidden=32)) - narrow) < 0.75
    assert best(256, range(-11, -6), None) < narrow - 1.75
