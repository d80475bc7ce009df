"""Parameter counts against transformers' own modules on the meta device, and against published numbers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from plan_shapes import HYBRID, models

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
    "mistral-7b": (7241732096, 7241732096), "mistral-7b-v0.3": (7248023552, 7248023552),
    "mixtral-8x7b": (46702792704, 12879925248),
    "gemma-2b": (2506172416, 2506172416), "gemma-7b": (8537680896, 8537680896),
    "gemma-2-2b": (2614341888, 2614341888), "gemma-2-9b": (9241705984, 9241705984), "gemma-2-27b": (27227128320, 27227128320),
    "gemma-3-1b": (999885952, 999885952),
    "gpt2": (124439808, 124439808), "gpt2-medium": (354823168, 354823168), "gpt2-large": (774030080, 774030080), "gpt2-xl": (1557611200, 1557611200),
    "qwen2.5-0.5b": (494032768, 494032768), "qwen2.5-7b": (7615616512, 7615616512), "qwen2.5-72b": (72706203648, 72706203648),
    "pythia-70m": (70426624, 70426624), "pythia-160m": (162322944, 162322944), "pythia-410m": (405334016, 405334016),
    "pythia-1b": (1011781632, 1011781632), "pythia-1.4b": (1414647808, 1414647808), "pythia-2.8b": (2775208960, 2775208960),
    "olmo-2-7b": (7298617344, 7298617344), "gpt-neox-20b": (20554567680, 20554567680),
    "jamba-v0.1": (51570323328, 12110311296),
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


@pytest.mark.parametrize("family", [*HYBRID, "rwkv"])
def test_the_count_of_what_has_a_recurrence_is_transformers_own(family: str) -> None:
    @settings(PEER, max_examples=12)
    @given(models((family,)))
    def same(model: ModelSpec) -> None:
        assert count(model).total == peer(model)
        assert ModelSpec.from_hf(model.to_hf().to_dict()) == model

    same()


@pytest.mark.parametrize(
    "name",
    [
        "llama-3-8b",
        "qwen3-0.6b",
        "qwen3-30b-a3b",
        "deepseek-v3",
        "bamba-9b",
        "kimi-k2",
        "smollm2-135m",
        "mistral-7b",
        "mixtral-8x7b",
        "qwen2.5-7b",
        "gemma-7b",
        "gemma-2-9b",
        "gemma-3-27b",
        "gpt2-xl",
        "nemotron4-15b",
        "olmo-2-7b",
        "glm-4.5",
        "glm-4.5-air",
        "deepseek-v2",
        "jamba-v0.1",
        "granite-4.0-h-tiny",
        "rwkv-4-169m",
    ],
)
def test_the_count_is_transformers_own_at_full_size(name: str) -> None:
    assert count(catalog.models[name]).total == peer(catalog.models[name])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_totals_are_the_published_ones(name: str) -> None:
    params = count(catalog.models[name])
    assert (params.total, params.active) == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_matrices_alone_are_the_published_table(name: str) -> None:
    params, vectors = count(catalog.models[name]), anatomy.vectors(catalog.models[name])
    beside = sum(vector.size * vector.copies for vector in vectors)
    assert (params.total - beside, params.active - beside) == MATRICES[name]


HEADLINES = {
    # billions in a model's name or paper, for those whose exact count nobody printed: within the rounding of the figure
    "gpt3-175b": 174.6, "opt-175b": 175, "bloom-176b": 176.2, "mt-nlg-530b": 530, "megatron-1t": 1008, "palm-540b": 540.4,
    "falcon-40b": 41.3, "falcon-180b": 180, "nemotron4-340b": 341, "megatron21-145.6b": 145.6, "megatron21-39.1b": 39.1,
    "gemma-3-4b": 3.88, "gemma-3-12b": 11.77, "gemma-3-27b": 27.0, "glm-4.5-air": 106.9, "glm-4.5": 353, "deepseek-v2": 236,
    "mixtral-8x22b": 140.6, "gpt-oss-120b": 116.8, "olmoe-1b-7b": 6.92, "starcoderbase-15b": 15.5, "bloomberggpt-50b": 50.6,
    "jamba-1.5-large": 398.6, "rwkv-4-169m": 0.1693, "rwkv-4-430m": 0.4304, "rwkv-4-1.5b": 1.515, "rwkv-4-3b": 2.985, "rwkv-4-7b": 7.393,
    "rwkv-4-14b": 14.15, "granite-4.0-h-tiny": 6.94, "granite-4.0-h-small": 32.2,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HEADLINES))
def test_totals_round_to_the_published_figure(name: str) -> None:
    assert count(catalog.models[name]).total / 1e9 == pytest.approx(HEADLINES[name], rel=5e-3)


def test_a_jambas_token_uses_the_published_share() -> None:
    assert count(catalog.models["jamba-1.5-large"]).active / 1e9 == pytest.approx(94, rel=5e-3)  # arXiv 2408.12570 §2


def test_llama_3_1_is_as_large_as_llama_3() -> None:
    assert count(catalog.models["llama-3.1-8b"]) == count(catalog.models["llama-3-8b"])
    assert count(catalog.models["llama-3.1-70b"]) == count(catalog.models["llama-3-70b"])


def test_a_gpt_of_any_kind_is_planned() -> None:
    # Narayanan et al., arXiv 2104.04473 eq. 2: P = 12·L·h²·(1 + 13/12h + (V+s)/12Lh), biases and norms included
    # but for the last norm's 2h.
    layers, hidden, seq, vocab = 24, 1024, 2048, 51200
    model = ModelSpec(
        family="gpt2", layers=layers, hidden=hidden, heads=16, ffn=4 * hidden, vocab=vocab, max_seq_len=seq
    )
    paper = 12 * layers * hidden**2 * (1 + 13 / (12 * hidden) + (vocab + seq) / (12 * layers * hidden))
    assert count(model).total == round(paper) + 2 * hidden
    bare = model.replace(positions="rope", attention_bias=False, mlp_bias=False, tied_embeddings=False)
    assert count(model).total - count(bare).total == seq * hidden + layers * 9 * hidden - vocab * hidden
    assert count(bare.replace(gated=True)).total - count(bare).total == layers * 4 * hidden**2


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
