"""Chunked loss and z-loss against full logits and closed forms, on every family (layouts: test_spread)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lablib.models.build import build_model
from lablib.specs import MLA, SSM, LabError, ModelSpec, MoE
from lablib.train.batches import Batch
from lablib.train.losses import TokenLosses, token_losses

SHAPE: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 48, "vocab": 97}
MIXTURE = MoE(experts=4, top_k=2, expert_ffn=48)
FAMILIES = {
    "qwen3": ModelSpec(family="qwen3", **SHAPE),
    "tied": ModelSpec(family="qwen3", tied_embeddings=True, **SHAPE),
    "llama": ModelSpec(family="llama", **SHAPE),
    "gpt2": ModelSpec(family="gpt2", max_seq_len=64, **SHAPE),
    "gemma": ModelSpec(family="gemma", **SHAPE),
    "gemma3": ModelSpec(family="gemma3", sliding_window=8, window_every=2, **SHAPE),
    "nemotron": ModelSpec(family="nemotron", **SHAPE),
    "mixtral": ModelSpec(family="mixtral", moe=MIXTURE, **SHAPE),
    "deepseek_v3": ModelSpec(family="deepseek_v3", moe=MIXTURE, mla=MLA(kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16), **SHAPE),
    "jamba": ModelSpec(family="jamba", ssm=SSM(heads=64, head_dim=1, state=8, step_rank=2, attention_layers=(1,)), **SHAPE),
    "rwkv": ModelSpec(family="rwkv", **{**SHAPE, "heads": 1}),
    "bamba": ModelSpec(family="bamba", ssm=SSM(heads=4, head_dim=16, state=8, attention_layers=(1,)), **SHAPE),
}  # fmt: skip


def batch() -> Batch:
    """Three sequences of 20 tokens of which a third is not predicted."""
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(97, (3, 20), generator=draw)
    labels = torch.where(torch.rand(ids.shape, generator=draw) < 0.3, -100, ids.roll(-1, 1))
    return Batch(ids, labels, torch.arange(20).expand(3, -1).contiguous())


def measured(model: Any, **settings: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses of the batch's tokens, and gradients of their sum, whole."""
    losses = TokenLosses(model, **settings)(batch())
    losses.sum().backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    full = {name: getattr(grad, "full_tensor", lambda grad=grad: grad)() for name, grad in grads.items()}
    model.zero_grad()
    return losses.detach(), full


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_give_the_losses_and_gradients_of_full_logits(family: str) -> None:
    model = build_model(FAMILIES[family], 0)
    full, chunked = (measured(model, chunked=kind, z_loss=1e-2, chunk=7) for kind in (False, True))
    torch.testing.assert_close(chunked, full, atol=1e-6, rtol=1e-5)


def test_no_more_than_a_chunk_of_logits_exists() -> None:
    model, seen = build_model(FAMILIES["qwen3"], 0), []
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: seen.append(len(hidden)) or forward(hidden)
    measured(model, chunked=True, chunk=16)
    assert sorted(seen) == sorted(2 * [16, 16, 16, 12])  # forward, and again in the backward pass


def test_no_family_drops_anything_out() -> None:
    for name, spec in FAMILIES.items():
        model = build_model(spec, 0).train()
        with torch.no_grad():
            assert torch.equal(TokenLosses(model)(batch()), TokenLosses(model)(batch())), name


def test_evaluation_needs_no_gradient() -> None:
    model = build_model(FAMILIES["qwen3"], 0).eval()
    with torch.no_grad():
        torch.testing.assert_close(TokenLosses(model, chunked=True, chunk=7)(batch()), TokenLosses(model)(batch()))


def test_the_head_is_itself_again_afterwards() -> None:
    model = build_model(FAMILIES["qwen3"], 0)
    ids = batch().inputs
    before = model(input_ids=ids).logits
    measured(model, chunked=True)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_z_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    labels = torch.tensor([2, -100])
    found = token_losses(logits, labels, z_loss=0.1)
    log_z = torch.logsumexp(logits.detach()[0], 0)
    torch.testing.assert_close(found, torch.stack([log_z - 3, torch.tensor(0.0)]))
    found.sum().backward()
    share = logits.detach()[0].softmax(0)
    wanted = share - torch.tensor([0.0, 0.0, 1.0]) + 0.1 * 2 * log_z * share
    torch.testing.assert_close(logits.grad, torch.stack([wanted, torch.zeros(3)]))


def test_capped_logits_are_refused() -> None:
    model = build_model(FAMILIES["qwen3"], 0)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(LabError, match="cross_entropy='full'"):
        TokenLosses(model, chunked=True)
