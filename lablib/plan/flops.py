"""Floating-point operations of one token, matmul by matmul; an m×k by k×n product is 2·m·k·n.

The backward pass of a matmul is two matmuls of the same size (gradients of input and of weight), so training is three
times the forward pass. Attention is counted causally: a token attends to (s+1)/2 tokens on average, half of what the
"12·L·h·s" convention (PaLM, arXiv 2204.02311 App. B) and torch's FlopCounterMode count.
"""

from __future__ import annotations

from functools import lru_cache

from lablib.plan import anatomy
from lablib.specs import ModelSpec, Spec


class Flops(Spec):
    """`per_token` and `total` are model FLOPs: what the mathematics needs. `hardware` adds recomputation."""

    forward: float = 0.0
    """One token, forward pass only."""
    per_token: float = 0.0
    """One trained token: forward and backward (and a reference model's forward where there is one)."""
    total: float = 0.0
    hardware: float = 0.0
    parts: dict[str, float] = {}
    """Forward FLOPs of one token by part."""


def matmuls(model: ModelSpec) -> dict[str, float]:
    """Forward FLOPs of one token in weight matmuls, by part; routed experts count `top_k` times."""
    parts: dict[str, float] = {}
    for matrix in anatomy.matrices(model):
        if matrix.active:
            parts[matrix.part] = parts.get(matrix.part, 0.0) + 2.0 * matrix.rows * matrix.cols * matrix.active
    return parts


def scores(model: ModelSpec, context: float) -> float:
    """Forward FLOPs of one token in attention's two products (QKᵀ, then weights · V) over `context` tokens."""
    key = model.mla.qk_nope_head_dim + model.mla.qk_rope_head_dim if model.mla else model.head_dim
    value = model.mla.v_head_dim if model.mla else model.head_dim
    return 2.0 * anatomy.layers(model).attention * model.heads * (key + value) * context


def scan(model: ModelSpec) -> float:
    """Forward FLOPs of one token in Mamba-2's chunked scan and convolution (arXiv 2405.21060 §6).

    Inside a chunk of Q tokens: C·Bᵀ for each group (2·Q·N) and its product with X for each head (2·Q·P); the states:
    Bᵀ·X and C·state for each head (2·N·P each).
    """
    if model.ssm is None:
        return 0.0
    ssm = model.ssm
    inside = 2.0 * ssm.chunk * (ssm.groups * ssm.state + ssm.heads * ssm.head_dim)
    states = 4.0 * ssm.heads * ssm.state * ssm.head_dim
    return anatomy.layers(model).ssm * (inside + states + 2.0 * ssm.conv * anatomy.ssm_conv(model))


def causal_context(seq_len: int) -> float:
    """Tokens that a token attends to on average in a causal sequence, itself included."""
    return (seq_len + 1) / 2


def forward(model: ModelSpec, context: float) -> dict[str, float]:
    """Forward FLOPs of one token by part, where it attends to `context` tokens; the caller may change the result."""
    return dict(_forward(model, context))


@lru_cache(maxsize=2048)
def _forward(model: ModelSpec, context: float) -> dict[str, float]:
    parts = matmuls(model)
    parts["scores"] = scores(model, context)
    if model.ssm:
        parts["scan"] = scan(model)
    return parts


def backward_ratio(adapters: bool) -> float:
    """Backward FLOPs over forward FLOPs: 2, or 1 where weights are frozen (only gradients of inputs are needed)."""
    return 1.0 if adapters else 2.0


def recomputed(parts: dict[str, float], recompute: str) -> float:
    """Forward FLOPs of one token that are done twice.

    "full" repeats every layer (all but the head). "selective" keeps the result of every matmul and of attention
    (`lablib.models.recompute.SAVED`) and repeats only what is elementwise, so only a Mamba-2 scan counts.
    """
    if recompute == "full":
        return sum(value for part, value in parts.items() if part != "head")
    return parts.get("scan", 0.0) if recompute == "selective" else 0.0
