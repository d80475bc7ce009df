"""Memory against peers that watch a real step: what autograd saves, and torch's own memory tracker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lablib.models.recompute import apply_recompute
from lablib.plan import memory
from lablib.plan.job import Job
from lablib.plan.params import count
from lablib.specs import MLA, ModelSpec, MoE, Parallelism

SHAPE = {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "ffn": 640, "vocab": 1024}
MODELS = {
    "llama": ModelSpec(**SHAPE),
    "qwen3": ModelSpec(family="qwen3", **SHAPE),
    "qwen3_moe": ModelSpec(family="qwen3_moe", moe=MoE(experts=4, top_k=2, expert_ffn=256), **SHAPE),
    "deepseek_v3": ModelSpec(
        family="deepseek_v3", layers=4, hidden=256, heads=4, ffn=640, vocab=1024, moe=MoE(experts=4, top_k=2, expert_ffn=256, shared_experts=1, dense_layers=1),
        mla=MLA(q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=64),
    ),
}  # fmt: skip
SEQUENCES, TOKENS = 2, 256


def job(model: ModelSpec, precision: str, recompute: str = "none") -> Job:
    layout = Parallelism(micro_batch_size=SEQUENCES)
    return Job(model, count(model), layout, TOKENS, SEQUENCES * TOKENS, precision=precision, recompute=recompute)


def built(model: ModelSpec, dtype: str, recompute: str = "none") -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    made = AutoModelForCausalLM.from_config(model.to_hf(), dtype=getattr(torch, dtype))
    made.train()
    apply_recompute(made, recompute)  # type: ignore[arg-type]
    return made


def saved(model: ModelSpec, precision: str) -> float:
    """Bytes of distinct storages that autograd saves up to the logits, weights and their bf16 copies left out."""
    import torch

    made = built(model, "float32" if precision != "bf16" else "bfloat16")
    weights = {shape for weight in made.parameters() for shape in (tuple(weight.shape), tuple(weight.shape)[::-1])}
    found: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tuple(tensor.shape) not in weights:  # the shapes are chosen so that no activation has a weight's
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids = torch.randint(0, model.vocab, (SEQUENCES, TOKENS))
    positions = torch.arange(TOKENS).repeat(SEQUENCES, 1)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
    ):
        made(input_ids=ids, position_ids=positions, use_cache=False)
    return float(sum(found.values()))


@pytest.mark.parametrize("precision", ["fp32", "autocast", "bf16"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_activations_are_what_autograd_saves(family: str, precision: str) -> None:
    model = MODELS[family]
    one = job(model, "fp32" if precision == "fp32" else "bf16")
    if precision == "bf16":  # FSDP2 computes in bf16 throughout; two ranks with the same micro-batch each
        one = replace(one, layout=one.layout.replace(dp_shard=2), step_tokens=2 * one.step_tokens)
    assert memory.kept(one) == pytest.approx(saved(model, precision), rel=0.04)


def tracked(model: ModelSpec, precision: str, recompute: str) -> float:
    """Peak bytes of a training step (the second, when AdamW has its moments), by torch's tracker."""
    import torch
    from torch.distributed._tools.mem_tracker import MemTracker

    made = built(model, "float32", recompute)
    optimizer = torch.optim.AdamW(made.parameters(), fused=True)
    ids = torch.randint(0, model.vocab, (SEQUENCES, TOKENS))
    positions = torch.arange(TOKENS).repeat(SEQUENCES, 1)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = made(input_ids=ids, position_ids=positions, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    tracker = MemTracker()
    tracker.track_external(made, optimizer)
    with tracker:
        step()
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return float(sum(size for kind, size in snapshot.items() if "Total" not in str(kind)))


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", sorted(MODELS))
def test_the_peak_is_what_torch_tracks(family: str, precision: str, recompute: str) -> None:
    model = MODELS[family]
    ours = max(sum(parts.values()) for parts in memory.moments(job(model, precision, recompute)).values())
    assert ours == pytest.approx(tracked(model, precision, recompute), rel=0.09)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_large_vocabularys_peak_is_what_torch_tracks(precision: str) -> None:
    model = MODELS["qwen3"].replace(vocab=16384, tied_embeddings=True)
    parts = memory.moments(job(model, precision))
    assert sum(parts["loss"].values()) == max(sum(moment.values()) for moment in parts.values())
    assert parts["loss"]["logits"] > 0.4 * sum(parts["loss"].values())
    assert sum(parts["loss"].values()) == pytest.approx(tracked(model, precision, "none"), rel=0.05)
