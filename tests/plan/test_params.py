"""Parameter counts against transformers' own modules on the meta device, and against published numbers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from plan_shapes import models

from lablib.plan import anatomy
from lablib.plan.params import count, with_adapters
from lablib.specs import LoRA, ModelSpec, catalog

PEER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PUBLISHED = {
    # name: (total, active), as counted by the sources named in the catalogue and by transformers 5.23 on the meta device
    "llama-1-7b": (6738415616, 6738415616),
    "llama-1-13b": (13015864320, 13015864320),
    "llama-1-33b": (32528943616, 32528943616),
    "llama-1-65b": (65285660672, 65285660672),
    "llama-2-70b": (68976648192, 68976648192),
    "llama-3-8b": (8030261248, 8030261248),
    "llama-3-70b": (70553706496, 70553706496),
    "llama-3.1-405b": (405853388800, 405853388800),
    "llama-3.2-1b": (1235814400, 1235814400),
    "llama-3.2-3b": (3212749824, 3212749824),
    "tinyllama-1.1b": (1100048384, 1100048384),
    "smollm2-135m": (134515008, 134515008),
    "smollm2-1.7b": (1711376384, 1711376384),
    "qwen3-0.6b": (596049920, 596049920),
    "qwen3-1.7b": (1720574976, 1720574976),
    "qwen3-4b": (4022468096, 4022468096),
    "qwen3-8b": (8190735360, 8190735360),
    "qwen3-30b-a3b": (30532122624, 3353032704),
    "qwen3-235b-a22b": (235093634560, 22190763520),
    "deepseek-v3": (671026404352, 37552282624),
}  # fmt: skip
"""From each model's card, index or paper, norms included (Hugging Face hub; arXiv 2412.19437: 671B total, 37B active)."""

MATRICES = {
    # without norms, as a published architecture table gives them: total and active
    "llama-1-7b": (6738149376, 6738149376), "llama-1-13b": (13015449600, 13015449600), "llama-1-33b": (32528138240, 32528138240),
    "llama-1-65b": (65284341760, 65284341760), "llama-2-7b": (6738149376, 6738149376), "llama-2-13b": (13015449600, 13015449600),
    "llama-2-70b": (68975329280, 68975329280), "llama-3-8b": (8029995008, 8029995008), "llama-3-70b": (70552387584, 70552387584),
    "llama-3.1-405b": (405849243648, 405849243648), "llama-3.2-1b": (1235746816, 1235746816), "llama-3.2-3b": (3212574720, 3212574720),
    "tinyllama-1.1b": (1099956224, 1099956224), "smollm2-1.7b": (1711276032, 1711276032), "qwen3-0.6b": (595984384, 595984384),
    "qwen3-4b": (4022272000, 4022272000), "qwen3-8b": (8190427136, 8190427136), "qwen3-30b-a3b": (30531911680, 3352821760),
    "qwen3-235b-a22b": (235092836352, 22189965312), "deepseek-v3": (671025397760, 37551276032), "kimi-k2": (1026407202816, 32860471296),
}  # fmt: skip


def peer(model: ModelSpec) -> int:
    """Parameters that transformers allocates for the same config."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(model.to_hf())
    return sum(weight.numel() for weight in made.parameters())


@PEER
@given(models())
def test_the_count_is_transformers_own_for_any_shape(model: ModelSpec) -> None:
    assert count(model).total == peer(model)


@pytest.mark.parametrize(
    "name", ["llama-3-8b", "qwen3-0.6b", "qwen3-30b-a3b", "deepseek-v3", "bamba-9b", "kimi-k2", "smollm2-135m"]
)
def test_the_count_is_transformers_own_at_full_size(name: str) -> None:
    assert count(catalog.models[name]).total == peer(catalog.models[name])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_totals_are_the_published_ones(name: str) -> None:
    params = count(catalog.models[name])
    assert (params.total, params.active) == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_matrices_alone_are_the_published_table(name: str) -> None:
    params = count(catalog.models[name])
    norms = params.parts["norm"]
    assert (params.total - norms, params.active - norms) == MATRICES[name]


def test_every_model_of_the_catalogue_is_counted() -> None:
    unchecked = set(catalog.models) - set(PUBLISHED) - set(MATRICES)
    assert unchecked == {
        "bamba-9b",
        "llama-3.1-8b",
        "llama-3.1-70b",
    }  # the first against the peer, the others are their 3.0 twins
    assert count(catalog.models["llama-3.1-8b"]) == count(catalog.models["llama-3-8b"])
    assert count(catalog.models["llama-3.1-70b"]) == count(catalog.models["llama-3-70b"])


@PEER
@given(models())
def test_parts_add_up_and_active_is_never_more(model: ModelSpec) -> None:
    params = count(model)
    assert sum(params.parts.values()) == params.total == params.trainable
    assert 0 < params.active <= params.total
    assert (params.active < params.total) == bool(
        model.moe and model.moe.top_k < model.moe.experts and anatomy.layers(model).moe
    )


def test_adapters_are_peft_own_count() -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=128)
    for targets in ("all-linear", ("q_proj", "v_proj")):
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(model.to_hf())
        wanted = targets if isinstance(targets, str) else list(targets)
        adapted = get_peft_model(base, LoraConfig(r=4, target_modules=wanted, task_type="CAUSAL_LM"))
        ours = with_adapters(model, LoRA(rank=4, targets=targets))
        assert ours.trainable == adapted.get_nb_trainable_parameters()[0]
        assert ours.total == adapted.get_nb_trainable_parameters()[1]
