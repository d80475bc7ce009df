"""Floating-point operations of one token, matmul by matmul; an m×k by k×n product is 2·m·k·n.

The backward pass of a matmul is two matmuls of the same size (gradients of input and of weight), so training is three
times the forward pass. Attention is counted causally: a token attends to (s+1)/2 tokens on average, half of what the
"12·L·h·s" convention (PaLM, arXiv 2204.02311 App. B) and torch's FlopCounterMode count.
"""

from __future__ import annotations

from functools import lru_cache

from lablib.plan import anatomy
from lablib.plan.grid import Number, least, most
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


def scores(model: ModelSpec, context: Number, windowed: Number | None = None) -> Number:
    """Forward FLOPs of one token in attention's two products (QKᵀ, then weights · V).

    A global layer's token attends to `context` tokens, a windowed layer's to `windowed`; where that is None, `context`
    is taken as the mean of a causal sequence and cut to the window (`windowed_context`).
    """
    whole, cut = _slopes(model)
    if not cut:
        return whole * context
    if windowed is None:
        windowed = least(context, windowed_context(most(0, 2 * context - 1), model.sliding_window))
    return whole * context + cut * windowed


@lru_cache(maxsize=512)
def _slopes(model: ModelSpec) -> tuple[float, float]:
    """FLOPs of one token for each token attended to: in all global layers, in all windowed ones."""
    layer = 2.0 * model.heads * (model.head_dim + anatomy.value_dim(model))
    windowed = anatomy.windowed_layers(model)
    return layer * (anatomy.layers(model).attention - windowed), layer * windowed


def scan(model: ModelSpec) -> float:
    """Forward FLOPs of one token in recurrences and convolutions, the same whatever the length of the sequence.

    Mamba-2's chunked scan (arXiv 2405.21060 §6), inside a chunk of Q tokens: C·Bᵀ for each group (2·Q·N) and its product with
    X for each head (2·Q·P); the states: Bᵀ·X and C·state for each head (2·N·P each). Mamba-1's (arXiv 2312.00752 alg. 2), for
    each channel and number of its state: Δ·A, its exponential, B·Δx, a multiply-add into the state and one out of it (7).
    RWKV-4's (arXiv 2305.13048 eq. 16), for each channel: numerator and denominator, of the output and of the state (5 each),
    and their quotient.
    """
    if model.traits.recurrent:
        return 11.0 * anatomy.layers(model).recurrent * anatomy.mixing(model)
    if model.ssm is None:
        return 0.0
    ssm = model.ssm
    if ssm.step_rank:
        each = 7.0 * ssm.state + 2.0 * ssm.conv
        return anatomy.layers(model).ssm * anatomy.ssm_inner(model) * each
    inside = 2.0 * ssm.chunk * (ssm.groups * ssm.state + ssm.heads * ssm.head_dim)
    states = 4.0 * ssm.heads * ssm.state * ssm.head_dim
    return anatomy.layers(model).ssm * (inside + states + 2.0 * ssm.conv * anatomy.ssm_conv(model))


def causal_context(seq_len: Number) -> Number:
    """Tokens that a token attends to on average in a causal sequence, itself included."""
    return (seq_len + 1) / 2


def windowed_context(seq_len: Number, window: int | None) -> Number:
    """The same where no token sees more than `window` tokens, itself included: the mean of min(i, w) over i = 1..s,
    (w(w+1)/2 + (s-w)·w) / s = w - w(w-1)/2s for s ≥ w. None is no window."""
    if window is None:
        return causal_context(seq_len)
    seen = least(window, seq_len)
    return seen - seen * (seen - 1) / (2 * most(seq_len, 1))


def forward(model: ModelSpec, context: Number, windowed: Number | None = None) -> dict[str, Number]:
    """Forward FLOPs of one token by part; the caller may change the result. `context` is as in `scores` and may be an
    array: then "scores" is one."""
    fixed, scanned = _fixed(model)
    parts: dict[str, Number] = dict(fixed)
    parts["scores"] = scores(model, context, windowed)
    if scanned:
        parts["scan"] = scanned
    return parts


@lru_cache(maxsize=512)
def _fixed(model: ModelSpec) -> tuple[dict[str, float], float]:
    """What does not depend on the context: weight matmuls by part, and the scan."""
    return matmuls(model), scan(model)


def backward_ratio(adapters: bool) -> float:
    """Backward FLOPs over forward FLOPs: 2, or 1 where weights are frozen (only gradients of inputs are needed)."""
    return 1.0 if adapters else 2.0


BUDGET_AGAIN = 0.25
"""Share of the layers' matmul FLOPs that half the activation bytes leave to be done again. Of a compiled Llama-3-8B's
activations matmuls' results are 72 %, so half the bytes keep 70 % of them, and those of most FLOPs a byte first: dropped are
results of rows `hidden`, 30 % of the bytes and 24 % of the FLOPs."""


def recomputed(parts: dict[str, Number], recompute: str, gated: bool = True) -> Number:
    """Forward FLOPs of one token that are done twice, for each policy of `lablib.specs.recipe.Recompute`.

    "full" repeats every layer (all but the head), "selective-layer" every second one. "selective" keeps the result of
    every matmul and of attention (`lablib.models.recompute.SAVED`) and repeats only what is elementwise, so only a
    scan counts. "selective-op" also repeats every second matmul of a layer in the order they run
    (torchtitan's policy): keys and output, half of attention's weights, and the feed-forward's second matrix, a third
    of a gated one and half of a plain one. "attention" repeats the two products of the scores,
    "budget" a share of the matmuls (`BUDGET_AGAIN`).
    """
    if recompute in ("full", "selective-layer"):
        layers = sum(value for part, value in parts.items() if part != "head")
        return layers if recompute == "full" else layers / 2
    if recompute == "attention":
        return parts.get("scores", 0.0)
    if recompute == "budget":
        return BUDGET_AGAIN * sum(value for part, value in parts.items() if part not in ("head", "scores"))
    again = parts.get("scan", 0.0) if recompute in ("selective", "selective-op") else 0.0
    if recompute == "selective-op":
        wide = parts.get("ffn", 0.0) + parts.get("experts", 0.0)
        again = again + parts.get("attention", 0.0) / 2 + parts.get("ssm", 0.0) / 2 + wide / (3 if gated else 2)
    return again
