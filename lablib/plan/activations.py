"""Bytes that one token's forward pass keeps for the backward pass, tensor by tensor, for one layer of each kind.

`wide` tensors have the model's width on every tensor-parallel rank (norms and residuals are replicated); `split` ones
are divided over tensor-parallel ranks. Attention is fused (its score matrix is never stored, arXiv 2205.14135). The
closed form this refines is Korthikanti et al. (arXiv 2205.05198 §4): 34·s·b·h bytes for a GPT layer without scores.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from lablib.plan import anatomy
from lablib.specs import ModelSpec

SINGLE = 4
"""Bytes of an fp32 number: norms compute in it whatever the precision."""


class Kept(NamedTuple):
    """Bytes a token in one layer."""

    wide: float
    split: float

    def each(self, tp: int) -> float:
        """Bytes on one of `tp` ranks."""
        return self.wide + self.split / tp

    def __add__(self, other: Kept) -> Kept:  # type: ignore[override]
        return Kept(self.wide + other.wide, self.split + other.split)


NOTHING = Kept(0.0, 0.0)


def norm(features: int, width: int, fused: bool) -> float:
    """An RMSNorm keeps its input and its output; unfused also the fp32 copy and the normalised value."""
    return features * (2 * width if fused else width + (SINGLE if width < SINGLE else 0) + SINGLE + width)


@lru_cache(maxsize=512)
def attention(model: ModelSpec, width: int, fused: bool) -> Kept:
    """Norm, queries, keys, values, attention's output and its log-sum-exp (one fp32 a head)."""
    key = model.mla.qk_nope_head_dim + model.mla.qk_rope_head_dim if model.mla else model.head_dim
    value = model.mla.v_head_dim if model.mla else model.head_dim
    kv_heads = model.heads if model.mla else model.kv_heads
    split = float(width * (model.heads + kv_heads) * (key + value) + SINGLE * model.heads)
    if model.family in ("qwen3", "qwen3_moe"):
        split += norm(model.head_dim * (model.heads + model.kv_heads), width, fused)
    wide = norm(model.hidden, width, fused)
    if model.mla:
        wide += norm((model.mla.q_lora_rank or 0) + model.mla.kv_lora_rank, width, fused)
    return Kept(wide, split)


def _gated(features: float, width: int, fused: bool) -> float:
    """SwiGLU keeps gate, up and their product; unfused also the activated gate (arXiv 2002.05202)."""
    return features * width * (3 if fused else 4)


@lru_cache(maxsize=512)
def dense(model: ModelSpec, width: int, fused: bool) -> Kept:
    """Norm and a gated feed-forward."""
    return Kept(norm(model.hidden, width, fused), _gated(model.ffn, width, fused))


@lru_cache(maxsize=512)
def sparse(model: ModelSpec, width: int, fused: bool) -> Kept:
    """Norm, router probabilities (fp32), each token's `top_k` copies in and out of the experts, and shared experts."""
    if model.moe is None:
        return NOTHING
    moe = model.moe
    routed = moe.top_k * (2 * width * model.hidden + _gated(moe.expert_ffn, width, fused))
    shared = _gated(moe.expert_ffn * moe.shared_experts, width, fused)
    return Kept(norm(model.hidden, width, fused) + 2 * SINGLE * moe.experts, routed + shared)


@lru_cache(maxsize=512)
def mamba(model: ModelSpec, width: int, fused: bool) -> Kept:
    """Norm, the projection's parts (gate, convolution in and out, steps), the scan's output and its gated norm."""
    if model.ssm is None:
        return NOTHING
    inner, conv = anatomy.ssm_inner(model), anatomy.ssm_conv(model)
    states = SINGLE * model.ssm.heads * model.ssm.head_dim * model.ssm.state / model.ssm.chunk
    split = width * (2 * inner + 2 * conv + model.ssm.heads) + norm(inner, width, fused) + states
    return Kept(norm(model.hidden, width, fused), split)


@lru_cache(maxsize=512)
def saved_matmuls(model: ModelSpec, width: int) -> float:
    """Bytes a token in all layers that selective recomputation keeps: each matmul's result and attention's output."""
    results = sum(m.cols * m.active for m in anatomy.matrices(model) if m.part not in ("embedding", "head"))
    n = anatomy.layers(model)
    value = model.mla.v_head_dim if model.mla else model.head_dim
    return width * (results + n.attention * model.heads * value) + SINGLE * n.attention * model.heads


def whole(model: ModelSpec, width: int, fused: bool) -> dict[str, tuple[int, Kept]]:
    """(number of blocks, bytes a token in one of them) by kind of block."""
    n = anatomy.layers(model)
    kinds = {
        "attention": (n.attention, attention(model, width, fused)),
        "ffn": (n.dense, dense(model, width, fused)),
        "experts": (n.moe, sparse(model, width, fused)),
        "ssm": (n.ssm, mamba(model, width, fused)),
    }
    return {name: block for name, block in kinds.items() if block[0]}


@lru_cache(maxsize=1024)
def total(model: ModelSpec, width: int, fused: bool) -> Kept:
    """Bytes a token in all layers together, without recomputation."""
    blocks = whole(model, width, fused).values()
    return Kept(sum(n * kept.wide for n, kept in blocks), sum(n * kept.split for n, kept in blocks))
