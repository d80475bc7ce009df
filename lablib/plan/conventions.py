"""One number, six conventions: what a published TFLOP/s or MFU counts, and the tokens/s behind it.

Sources divide the same tokens/s by different FLOPs, so their MFU cannot be compared (Llama-3-8B at 8,192 tokens: 1.27
times 6N in PaLM's convention, 1.07 in Megatron-Bridge's). Tokens/s can: convert first. FLOPs are for one trained token
throughout, peaks in FLOP/s, rates for one GPU.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from lablib.plan import anatomy, flops
from lablib.plan.grid import Number, least
from lablib.plan.params import count
from lablib.specs import LabError, ModelSpec

Name = Literal["6n", "6n-active", "palm", "full", "causal", "hardware"]


class Convention(NamedTuple):
    """What is counted for one trained token."""

    formula: str
    source: str


CONVENTIONS: dict[Name, Convention] = {
    "6n": Convention("6·N, all parameters", "arXiv 2001.08361 §2.1"),
    "6n-active": Convention("6·N, parameters that a token visits", "arXiv 2412.19437 Table 1 (active parameters)"),
    "palm": Convention("6·N + 12·L·H·Q·s, active parameters with embeddings, full attention", "arXiv 2204.02311 App. B"),
    "full": Convention("3 × (2·matmul weights + 4·L·H·Q·s): no look-up, full attention", "arXiv 2104.04473 eq. 3, less recomputation"),
    "causal": Convention("the same, each token attending to half of the sequence and to its window only", "NVIDIA-NeMo/Megatron-Bridge flop_utils"),
    "hardware": Convention("full, and the forward passes that recomputation repeats: 96·B·s·L·h²·(1 + s/6h + V/16Lh)", "arXiv 2104.04473 eq. 3"),
}  # fmt: skip
"""Mixture-of-experts layers count the chosen experts everywhere but in "6n"."""

USED_BY: dict[str, Name] = {
    "mpt": "palm",
    "torchtitan": "palm",
    "fms-fsdp": "palm",
    "llama3-paper": "palm",
    "nanotron": "full",
    "nemo": "full",
    "megatron-lm-llama": "full",
    "megatron-lm-2024": "full",
    "megatron-bridge": "causal",
    "megatron-lm-2021": "hardware",
    "zero3-2021": "hardware",
    "mt-nlg": "hardware",
    "bloom-prequel": "hardware",
    "prime-rl": "causal",
}
"""Which one each group of published rows uses, found by dividing its TFLOP/s by its tokens/s where it gives both
(`docs/planner.md`), else as its authors say."""

HEALTHY = (0.35, 0.55)
"""MFU of a healthy dense bf16 run (the guide, §6.1 and Figure 4)."""


def per_token(model: ModelSpec, seq_len: Number, convention: Name, recompute: str = "none") -> Number:
    """FLOPs of one trained token as the convention counts them; `recompute` matters to "hardware" alone.

    Raises `LabError` for a convention that is not in `CONVENTIONS`.
    """
    if convention not in CONVENTIONS:
        raise LabError(f"convention={convention!r}: it must be one of {', '.join(CONVENTIONS)}")
    if convention == "6n":
        return 6.0 * count(model).total
    active = 6.0 * count(model).active
    if convention == "6n-active":
        return active
    if convention == "palm":
        return active + 12.0 * anatomy.layers(model).attention * model.heads * _score_width(model) * seq_len
    if convention == "causal":
        parts = flops.forward(model, flops.causal_context(seq_len))
        return 3 * sum(parts.values())
    parts = flops.forward(model, seq_len, least(seq_len, model.sliding_window or seq_len))
    again = flops.recomputed(parts, recompute, model.gated) if convention == "hardware" else 0.0
    return 3 * sum(parts.values()) + again


def _score_width(model: ModelSpec) -> float:
    """PaLM's Q: features of a head, the mean of keys' and values' where they differ."""
    return (model.head_dim + anatomy.value_dim(model)) / 2


def tokens_per_second(
    tflops: Number, model: ModelSpec, seq_len: Number, convention: Name, recompute: str = "none"
) -> Number:
    """Tokens a second of one GPU behind a published TFLOP/s."""
    return tflops * 1e12 / per_token(model, seq_len, convention, recompute)


def tflops(
    tokens_per_second: Number, model: ModelSpec, seq_len: Number, convention: Name, recompute: str = "none"
) -> Number:
    """TFLOP/s of one GPU as the convention reports them."""
    return tokens_per_second * per_token(model, seq_len, convention, recompute) / 1e12


def mfu(
    tokens_per_second: Number, model: ModelSpec, seq_len: Number, convention: Name, peak: float, recompute: str = "none"
) -> Number:
    """Share of the data-sheet `peak` (FLOP/s); of hardware FLOPs it is what papers call HFU."""
    return tflops(tokens_per_second, model, seq_len, convention, recompute) * 1e12 / peak


def tokens_from_mfu(
    mfu: Number, model: ModelSpec, seq_len: Number, convention: Name, peak: float, recompute: str = "none"
) -> Number:
    """Tokens a second of one GPU behind a published MFU (or HFU)."""
    return tokens_per_second(mfu * peak / 1e12, model, seq_len, convention, recompute)


def converted(
    tflops: Number, model: ModelSpec, seq_len: Number, convention: Name, wanted: Name, recompute: str = "none"
) -> Number:
    """A TFLOP/s (or an MFU) of one convention as another would have reported it."""
    return tflops * per_token(model, seq_len, wanted, recompute) / per_token(model, seq_len, convention, recompute)


def claimed_mfu(model: ModelSpec, tokens: float, gpu_hours: float, peak: float) -> float:
    """The MFU that a claim of `tokens` trained in `gpu_hours` implies, at 6·N of active parameters.

    Attention is left out, so the true one is higher: a claim over 1 here is impossible in every convention.
    """
    return per_token(model, 0, "6n-active") * tokens / (gpu_hours * 3600.0 * peak)


def impossible(model: ModelSpec, tokens: float, gpu_hours: float, peak: float) -> str | None:
    """Why a claim cannot be true, with the percent of the peak that it needs; None where it can."""
    share = claimed_mfu(model, tokens, gpu_hours, peak)
    return verdict(share) if share > 1 else None


def verdict(share: float) -> str | None:
    """What an MFU says by itself: impossible over 1, unusual outside 35–55 %, else None."""
    low, high = HEALTHY
    if share > 1:
        return f"impossible: {share:.0%} of the peak; check the tokens, the hours and the number of GPUs"
    if share > high:
        return f"unusually high: MFU {share:.0%} is above {high:.0%}; check the convention that it is counted in"
    if share < low:
        return f"low: MFU {share:.0%} is under {low:.0%}, what a healthy dense run reaches"
    return None
