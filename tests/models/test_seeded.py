"""Streamed initial weights: transformers' own distribution in every family, each tensor from the seed and its name alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from lablib.models import seeded
from lablib.models.build import build_model, initialise, is_residual_projection
from lablib.models.seeded import draw, skeleton
from lablib.models.stages import cut
from lablib.specs import MLA, SSM, ModelSpec, MoE, Parallelism

SHAPE: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4, "ffn": 96, "vocab": 200, "max_seq_len": 64}
OWN: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"moe": MoE(experts=4, top_k=2, expert_ffn=48)},
    "glm4_moe": {"moe": MoE(experts=4, top_k=2, expert_ffn=48)},
    "bamba": {"ssm": SSM(heads=8, head_dim=16, state=16, chunk=16, attention_layers=(1,))},
    "jamba": {
        "ssm": SSM(heads=128, head_dim=1, state=8, step_rank=4, attention_layers=(1,)),
        "moe": MoE(experts=4, top_k=2, expert_ffn=96, norm_topk=False, every=2),
    },
    "granitemoehybrid": {"ssm": SSM(heads=8, head_dim=16, state=16, chunk=16, attention_layers=(1,))},
    "rwkv": {"heads": 1},
    "deepseek_v3": {
        "moe": MoE(experts=4, top_k=2, expert_ffn=48),
        "mla": MLA(kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16),
    },
}
DIGEST = "c53fa8c9530fee619b6a15ea8e476a281c05ed03879ffec37dcc816a9f9a0401"
"""Of ``printf '0:lm_head.weight' | sha256sum``."""
FAMILIES = ("llama", "qwen2", "gemma2", "gemma3", "olmo2", "gpt2", "nemotron", *OWN)


def spec(family: str) -> ModelSpec:
    return ModelSpec.model_validate({"family": family, **SHAPE, **OWN.get(family, {})})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_as_transformers_begins_it(family: str) -> None:
    model = build_model(spec(family), 0)
    peer = AutoModelForCausalLM.from_config(spec(family).to_hf(), dtype=torch.float32)
    found, wanted = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (model, peer))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if name.endswith(seeded.STEP_BIASES):
            continue
        if tensor.ndim < 2 or not tensor.numel() or float(tensor.detach().std()) == 0:  # nothing is drawn
            assert torch.equal(found[name], tensor), name
            continue
        scale = 1 / math.sqrt(2 * SHAPE["layers"]) if is_residual_projection(name, tensor) else 1.0
        spread, same = (float(one.detach().std()) for one in (found[name], tensor))
        assert spread == pytest.approx(scale * same, rel=8 / math.sqrt(2 * tensor.numel())), name


@pytest.mark.parametrize("family", ["bamba", "jamba"])
def test_steps_begin_as_mambas_papers_have_them(family: str) -> None:
    width = 1 if family == "jamba" else 16
    scan = OWN[family]["ssm"].replace(heads=512 // width, head_dim=width, attention_layers=())
    model = build_model(spec(family).replace(hidden=256, heads=4, head_dim=64, layers=8, ssm=scan), 0)
    biases = [weight.detach() for name, weight in model.named_parameters() if name.endswith(seeded.STEP_BIASES)]
    assert len(biases) == 8 and not torch.equal(biases[0], biases[1])
    steps = torch.nn.functional.softplus(torch.cat(biases).double()).log()
    low, high = (math.log(step) for step in (1e-3, 0.1))
    assert low <= float(steps.min()) and float(steps.max()) <= high + 1e-6
    assert stats.kstest(steps.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_a_tensor_depends_on_its_name_and_the_seed_alone() -> None:
    whole, taller = (dict(build_model(spec("llama").replace(layers=n), 0).named_parameters()) for n in (2, 3))
    names = ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight")
    assert all(torch.equal(whole[name], taller[name]) for name in names)
    assert not torch.equal(whole[names[0]], whole[names[2]])
    assert not torch.equal(whole["model.layers.0.mlp.up_proj.weight"], whole[names[1]])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stage_draws_its_part_of_the_whole(rank: int) -> None:
    stage, whole = build_model(spec("llama"), 5), dict(build_model(spec("llama"), 5).named_parameters())
    cut(stage, rank, Parallelism(pp=2))
    for weight in stage.parameters():
        torch.nn.init.zeros_(weight)
    initialise(stage, spec("llama"), 5)
    assert all(torch.equal(weight, whole[name]) for name, weight in stage.named_parameters())


def test_the_callers_random_state_is_left() -> None:
    before = torch.get_rng_state()
    build_model(spec("llama"), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_second_tensor_has_memory_while_one_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, most = skeleton(spec("qwen3_moe")), []
    real = type(whole)._init_weights

    def watched(self: Any, module: Any) -> None:
        tensors = [*self.parameters(), *self.buffers()]
        most.append(sum(not tensor.is_meta for tensor in tensors))
        real(self, module)

    model = build_model(spec("qwen3_moe"), 0)
    monkeypatch.setattr(type(whole), "_init_weights", watched)
    draw(model, whole, 0)
    assert most and max(most) == 1 and all(tensor.is_meta for tensor in whole.parameters())


def test_a_tensor_that_nobody_initialises_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, model = skeleton(spec("llama")), build_model(spec("llama"), 0)
    monkeypatch.setattr(type(whole), "_init_weights", lambda self, module: None)
    with pytest.raises(RuntimeError, match=r"embed_tokens.weight.*no initial values"):
        draw(model, whole, 0)
    assert all(tensor.is_meta for tensor in whole.parameters())


def test_keys_are_the_same_on_every_machine() -> None:
    assert seeded._key(0, "lm_head.weight") == int.from_bytes(bytes.fromhex(DIGEST)[:8], "big", signed=True)
