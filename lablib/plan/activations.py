"""Bytes that one token's forward pass keeps for the backward pass, tensor by tensor, for one layer of each kind.

`wide` tensors have the model's width on every tensor-parallel rank (norms and residuals are replicated); `split` ones
are divided over tensor-parallel ranks. Attention is fused (its score matrix is never stored, arXiv 2205.14135). The
closed form this refines is Korthikanti et al. (arXiv 2205.05198 §4): 34·s·b·h bytes for a GPT layer without scores.
Held against what autograd really saves, and against torch's memory tracker, in ``tests/plan/test_memory_peer.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from lablib.plan import anatomy
from lablib.plan.grid import Number
from lablib.specs import ModelSpec

SINGLE = 4
"""Bytes of an fp32 number: norms compute in it whatever the precision."""


class Style(NamedTuple):
    """How a pass computes: bytes of a matmul's tensors, bytes of the residual stream, and whether kernels are fused.

    Under autocast the stream stays in fp32 and each linear layer keeps its own bf16 copy of its input.
    """

    width: int
    stream: int
    fused: bool
    dropout: bool = False
    """Hidden dropout after attention and feed-forward keeps a one-byte mask each."""
    rotated: bool = False
    """The fused projection's output stays beside the rotated queries and keys (rotary embedding not fused)."""

    @property
    def casts(self) -> bool:
        """Whether inputs of matmuls are cast one by one."""
        return self.stream > self.width


class Kept(NamedTuple):
    """Bytes a token in one layer."""

    wide: float
    split: float

    def each(self, tp: Number, sequence_parallel: bool = False) -> Number:
        """Bytes on one of `tp` ranks; sequence parallelism splits the wide part too (arXiv 2205.05198 §4.2)."""
        return (self.wide + self.split) / tp if sequence_parallel else self.wide + self.split / tp


NOTHING = Kept(0.0, 0.0)


def norm(features: int, style: Style, readers: int) -> float:
    """An RMSNorm that `readers` linear layers read keeps its input in fp32, the normalised value and the output; fused,
    only input and output."""
    out = style.width * (readers if style.casts and not style.fused else 1)
    return float(features * (style.stream + style.width if style.fused else SINGLE + style.stream + out))


@lru_cache(maxsize=512)
def attention(model: ModelSpec, style: Style) -> Kept:
    """Norm, queries, keys, values, attention's output and its log-sum-exp (one fp32 a head)."""
    heads = model.heads + (model.heads if model.mla else model.kv_heads)
    split = float(style.width * heads * (model.head_dim + anatomy.value_dim(model)) + SINGLE * model.heads)
    if model.qk_norm:
        kept = (
            style.width if style.fused else SINGLE + style.width
        )  # the result turns into queries and keys, counted above
        split += model.head_dim * (model.heads + model.kv_heads) * kept
    if style.rotated:
        split += style.width * model.head_dim * (model.heads + model.kv_heads)
    wide = norm(model.hidden, style, 2 if model.mla else 3) + model.hidden * style.dropout
    if model.mla:
        wide += norm((model.mla.q_lora_rank or 0) + model.mla.kv_lora_rank, style, 1)
    return Kept(wide, split)


def _between(features: float, gated: bool, style: Style) -> float:
    """SwiGLU keeps gate, up and their product; unfused also the activated gate (arXiv 2002.05202). Without a gate, the
    activation's input and output."""
    return features * style.width * ((3 if style.fused else 4) if gated else 2)


@lru_cache(maxsize=512)
def dense(model: ModelSpec, style: Style) -> Kept:
    """Norm and a feed-forward."""
    wide = norm(model.hidden, style, 2 if model.gated else 1) + model.hidden * style.dropout
    return Kept(wide, _between(model.ffn, model.gated, style))


@lru_cache(maxsize=512)
def routed(model: ModelSpec, style: Style) -> float:
    """Bytes a token in one layer of its `top_k` copies, in and out of the experts."""
    if model.moe is None:
        return 0.0
    return model.moe.top_k * (2 * style.width * model.hidden + _between(model.moe.expert_ffn, model.gated, style))


@lru_cache(maxsize=512)
def sparse(model: ModelSpec, style: Style) -> Kept:
    """Norm, router probabilities (fp32), each token's `top_k` copies in and out of the experts, and shared experts."""
    if model.moe is None:
        return NOTHING
    moe = model.moe
    shared = _between(moe.expert_ffn * moe.shared_experts, model.gated, style)
    return Kept(norm(model.hidden, style, 2) + 2 * SINGLE * moe.experts, routed(model, style) + shared)


@lru_cache(maxsize=512)
def mamba(model: ModelSpec, style: Style) -> Kept:
    """Norm, the projection's parts (gate, convolution in and out, steps), the scan's output and its gated norm, as the fused
    kernels keep them: the states of every `chunk`-th token alone. (Without those kernels transformers keeps every state.)

    Mamba-1's kernel keeps x, steps, B and C, the gate and the output, and what the projections between them read (arXiv
    2312.00752 §3.3.2).
    """
    if model.ssm is None:
        return NOTHING
    inner, conv = anatomy.ssm_inner(model), anatomy.ssm_conv(model)
    states = SINGLE * model.ssm.heads * model.ssm.head_dim * model.ssm.state / model.ssm.chunk
    if rank := model.ssm.step_rank:
        small = rank + 2 * model.ssm.state
        kept = style.width * (5 * inner + small) + norm(small, style, 1) + states
        return Kept(norm(model.hidden, style, 1), kept)
    split = style.width * (2 * inner + 2 * conv + model.ssm.heads) + norm(inner, style, 1) + states
    return Kept(norm(model.hidden, style, 1), split)


@lru_cache(maxsize=512)
def recurrent(model: ModelSpec, style: Style) -> Kept:
    """RWKV's time mixing: norm, its three mixes of a token with the one before, keys, values and receptances, the recurrence's
    output and its gated one; and what gates the mixing over channels, with that one's two mixes."""
    if not model.traits.recurrent:
        return NOTHING
    wide = norm(model.hidden, style, 1) + style.width * 8 * model.hidden
    return Kept(wide, style.width * 6.0 * anatomy.mixing(model))


@lru_cache(maxsize=512)
def saved_matmuls(model: ModelSpec, style: Style, every: int = 1) -> float:
    """Bytes a token in all layers that selective recomputation keeps: each matmul's result (or one of `every`) and
    attention's output."""
    results = sum(m.cols * m.active for m in anatomy.matrices(model) if m.part not in ("embedding", "head"))
    n = anatomy.layers(model)
    attended = n.attention * model.heads
    return float(style.width * (results / every + attended * anatomy.value_dim(model)) + SINGLE * attended)


def scores(model: ModelSpec, seq_len: Number, dropout: bool) -> Number:
    """Bytes a token of attention that is not fused, in all layers: softmax's output in bf16, and with dropout its mask and
    what it leaves (5·a·s, arXiv 2205.05198 §4.1)."""
    return anatomy.layers(model).attention * model.heads * seq_len * (5 if dropout else 2)


@lru_cache(maxsize=1024)
def total(model: ModelSpec, style: Style) -> Kept:
    """Bytes a token in all layers together and the final norm, without recomputation."""
    n = anatomy.layers(model)
    kinds = ((n.attention, attention), (n.dense, dense), (n.moe, sparse), (n.ssm, mamba), (n.recurrent, recurrent))
    blocks = [(times, kept(model, style)) for times, kept in kinds if times]
    wide = sum(times * block.wide for times, block in blocks) + norm(model.hidden, style, 1)
    return Kept(wide, sum(times * block.split for times, block in blocks))
