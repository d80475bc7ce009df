"""Stretched rotary positions from published configs to a `ModelSpec` and back: the same logits beyond the first length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lablib import Cluster, catalog, estimate
from lablib.models.build import build_model
from lablib.specs import MLA, SFT, LabError, ModelSpec, Pretrain
from lablib.specs.hf_positions import positions
from lablib.specs.rope import RopeScaling, stretched
from lablib.train.start import _turns

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
         "intermediate_size": 48, "vocab_size": 99}  # fmt: skip
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
          "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
          "first_k_dense_replace": 1}  # fmt: skip
LLAMA = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
         "rope_type": "llama3"}  # fmt: skip
DEEPSEEK = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.7, "mscale_all_dim": 1.0, "type": "yarn",
            "original_max_position_embeddings": 32}  # fmt: skip
"""As in the config.json of Llama 3.1 8B and of DeepSeek V3 (whose two mscales are 1), with a shorter first length."""
PUBLISHED = {
    "llama": {**SMALL, "rope_scaling": LLAMA, "rope_theta": 500000.0, "max_position_embeddings": 256},
    "deepseek_v3": {**SMALL, **LATENT, "rope_scaling": DEEPSEEK, "max_position_embeddings": 1280},
    "qwen3": {**SMALL, "head_dim": 16, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 64},
    "gemma3_text": {**SMALL, "head_dim": 16, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 16,
                    "rope_theta": 1e6, "num_hidden_layers": 6, "max_position_embeddings": 256},
}  # fmt: skip
TOKENS = torch.arange(200)[None] % 99


def theirs(kind: str) -> Any:
    return AutoConfig.for_model(kind, **{name: dict(v) if isinstance(v, dict) else v for name, v in PUBLISHED[kind].items()})  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_stretch_gives_the_same_logits_beyond_the_first_length(kind: str) -> None:
    """From the raw config.json as well as from transformers' object of it; without the stretch they are others."""
    raw = {**theirs(kind).to_dict(), **PUBLISHED[kind], "rope_parameters": None, "model_type": kind}
    spec = ModelSpec.from_hf(raw)
    assert spec == ModelSpec.from_hf(theirs(kind)) == ModelSpec.from_hf(spec.to_hf())
    ours = build_model(spec, 0).eval()
    with torch.no_grad():
        logits = {}
        for name, config in {"theirs": theirs(kind), "plain": spec.replace(rope_scaling=None).to_hf()}.items():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            model.load_state_dict(ours.state_dict())
            logits[name] = model(input_ids=TOKENS, use_cache=False).logits
        found = ours(input_ids=TOKENS, use_cache=False).logits
    torch.testing.assert_close(found, logits["theirs"], rtol=0, atol=1e-6)
    assert not torch.allclose(found, logits["plain"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_type='dynamic'"),
        ({"type": "longrope", "long_factor": [1.0]}, "rope_type='longrope'"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16}, "beta_fast=16"),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}, "attention_factor=1.5"),
        ({"rope_type": "linear"}, "no factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.25}, "partial_rotary_factor=0.25"),
    ],
)
def test_a_stretch_that_cannot_be_carried_is_refused(rope: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        ModelSpec.from_hf({**theirs("qwen3").to_dict(), "rope_parameters": None, "rope_scaling": rope})


def test_llamas_stretch_is_kept_and_goes_no_further() -> None:
    spec = ModelSpec.from_hf(theirs("llama"))
    assert _turns(spec.to_hf().to_dict()) == _turns(theirs("llama").to_dict())
    with pytest.raises(LabError, match=r"Llama 3\.1's"):
        stretched(spec, 256, 512, "yarn")


CARDS = {
    "llama-3.1-8b": {"rope_scaling": {**LLAMA, "original_max_position_embeddings": 8192}, "rope_theta": 5e5, "max_position_embeddings": 131072},
    "llama-3.2-1b": {"rope_scaling": {**LLAMA, "original_max_position_embeddings": 8192, "factor": 32.0}, "rope_theta": 5e5, "max_position_embeddings": 131072},
    "deepseek-v3": {"rope_scaling": {**DEEPSEEK, "original_max_position_embeddings": 4096, "mscale": 1.0}, "rope_theta": 1e4, "max_position_embeddings": 163840},
    "gemma-3-4b": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 1e6, "max_position_embeddings": 131072, "model_type": "gemma3_text"},
}  # fmt: skip
"""Of the published config.json of each."""


@pytest.mark.parametrize("name", CARDS)
def test_the_catalogue_turns_positions_as_published(name: str) -> None:
    """And a tiny model of the row is built and turned so by transformers."""
    row = catalog.models[name]
    assert (row.rope_theta, row.rope_scaling) == positions(CARDS[name])
    small = {"layers": 6, "hidden": 64, "heads": 2, "kv_heads": 2, "ffn": 64, "vocab": 99}
    if row.mla:
        latent = MLA(**{one: LATENT[one] for one in MLA.model_fields})
        small |= {"mla": latent, "head_dim": 16, "moe": row.moe.replace(experts=4, top_k=1, expert_ffn=16, dense_layers=1, groups=1, top_groups=1)}  # fmt: skip
    model = build_model(row.replace(**small), 0)
    assert positions(model.config.to_dict()) == (row.rope_theta, row.rope_scaling)


def test_a_stretch_does_not_change_what_a_pretraining_costs() -> None:
    settings = {"tokens": "1B", "seq_len": 8192, "batch_tokens": "4M"}
    row, machine = catalog.models["llama-3.1-8b"], Cluster(accelerator="h100-sxm", nodes=8)
    plans = [estimate(Pretrain(model=model, **settings), machine) for model in (row, row.replace(rope_scaling=None))]
    assert plans[0] == plans[1]


def test_a_folder_whose_positions_cannot_be_said_is_planned_without_them(tmp_path: Path) -> None:
    """With a warning: positions have no parameters."""
    raw = {**theirs("qwen3").to_dict(), "rope_parameters": None, "rope_scaling": None, "max_position_embeddings": 64}
    for name, rope in (("plain", None), ("dynamic", {"rope_type": "dynamic", "factor": 2.0})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**raw, "rope_scaling": rope}))
    machine = Cluster(accelerator="h100-sxm")
    plain, dynamic = (estimate(SFT(model=str(tmp_path / name), data="chat.jsonl", seq_len=64), machine) for name in ("plain", "dynamic"))  # fmt: skip
    assert dynamic.params == plain.params and dynamic.memory == plain.memory and dynamic.gpu_hours == plain.gpu_hours
    (said,) = set(dynamic.warnings) - set(plain.warnings)
    assert "planned without its stretched positions (rope_type='dynamic')" in said


def test_yarn_recipes_of_before_are_the_same_experiment() -> None:
    """The hash of a stretched recipe before its scaling had Llama's and DeepSeek's settings."""
    model = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, head_dim=16, ffn=48, vocab=99,
                      rope_scaling=RopeScaling(kind="yarn", factor=4.0, original=1024))  # fmt: skip
    assert Pretrain(model=model, tokens="1M").science_hash == "4f23605f2d109156"
