"""Chunked and fused losses and z-loss against full logits and closed forms, on every family (layouts: test_spread)."""

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


def summed(model: Any, **settings: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sum of the batch's losses, and gradients of an eighth of it."""
    total = TokenLosses(model, **settings).sum(batch())
    (total / 8).backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return total.detach(), grads


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_give_the_losses_and_gradients_of_full_logits(family: str) -> None:
    model = build_model(FAMILIES[family], 0)
    full, chunked = (measured(model, kind=kind, z_loss=1e-2, chunk=7) for kind in ("full", "chunked"))
    torch.testing.assert_close(chunked, full, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fused_sum_has_the_gradients_of_full_logits(family: str) -> None:
    model = build_model(FAMILIES[family], 0)
    full, fused = (summed(model, kind=kind, z_loss=1e-2, chunk=7) for kind in ("full", "fused"))
    torch.testing.assert_close(fused, full, atol=1e-6, rtol=1e-5)


def test_a_fused_sum_is_torchs_linear_cross_entropy() -> None:
    model = build_model(FAMILIES["qwen3"], 0)
    found, grads = summed(model, kind="fused", chunk=16)
    given = batch()
    hidden = model.model(input_ids=given.inputs, position_ids=given.positions, use_cache=False).last_hidden_state
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=16, chunking_method=None)
    peer = torch.nn.functional.linear_cross_entropy(
        hidden.flatten(0, 1), model.lm_head.weight, given.labels.flatten(), reduction="sum", options=options
    )
    (peer / 8).backward()
    torch.testing.assert_close(found, peer.detach())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, atol=1e-6, rtol=1e-5)


def test_a_fused_sum_of_bf16_logits_is_fp32_where_torchs_is_not() -> None:
    model = build_model(FAMILIES["qwen3"], 0).bfloat16()
    found, full = (TokenLosses(model, kind).sum(batch()) for kind in ("fused", "full"))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, full, atol=0, rtol=1e-6)
    hidden, head = torch.randn(32, 16).bfloat16(), torch.randn(97, 16).bfloat16()
    peer = torch.nn.functional.linear_cross_entropy(
        hidden, head, torch.arange(32), reduction="sum", options=torch.nn.LinearCrossEntropyOptions()
    )
    assert peer.dtype == torch.bfloat16, "once it is fp32, use it"


@pytest.mark.slow
def test_a_compiled_model_has_the_same_fused_sum() -> None:
    plain, compiled = (build_model(FAMILIES["qwen3"], 0) for _ in range(2))
    compiled.compile(backend="aot_eager")
    torch.testing.assert_close(summed(compiled, kind="fused", chunk=16), summed(plain, kind="fused", chunk=16))


def test_a_fused_head_is_computed_once() -> None:
    model, seen = build_model(FAMILIES["qwen3"], 0), []
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: seen.append(hidden.shape[1]) or forward(hidden)
    summed(model, kind="fused", chunk=16)
    assert seen == [16, 16, 16, 12]


def test_no_more_than_a_chunk_of_logits_exists() -> None:
    model, seen = build_model(FAMILIES["qwen3"], 0), []
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: seen.append(hidden.shape[1]) or forward(hidden)
    measured(model, kind="chunked", chunk=16)
    assert sorted(seen) == sorted(2 * [16, 16, 16, 12])  # forward, and again in the backward pass


def test_no_family_drops_anything_out() -> None:
    for name, spec in FAMILIES.items():
        model = build_model(spec, 0).train()
        with torch.no_grad():
            assert torch.equal(TokenLosses(model)(batch()), TokenLosses(model)(batch())), name


def test_evaluation_needs_no_gradient() -> None:
    model = build_model(FAMILIES["qwen3"], 0).eval()
    with torch.no_grad():
        torch.testing.assert_close(TokenLosses(model, kind="chunked", chunk=7)(batch()), TokenLosses(model)(batch()))


def test_the_head_is_itself_again_afterwards() -> None:
    model = build_model(FAMILIES["qwen3"], 0)
    ids = batch().inputs
    before = model(input_ids=ids).logits
    measured(model, kind="chunked")
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
    for kind in ("chunked", "fused"):
        with pytest.raises(LabError, match=f"'{kind}'.*cross_entropy='full'"):
            TokenLosses(model, kind)
