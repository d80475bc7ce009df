"""Rotary positions beyond the length that a model was trained at: a larger base, interpolation, YaRN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lablib.specs.base import Spec
from lablib.specs.errors import LabError
from lablib.specs.units import Count

if TYPE_CHECKING:
    from lablib.specs.model import ModelSpec

Stretch = Literal["none", "linear", "ntk", "yarn"]
"""none: the base alone; linear: all positions divided by the factor (arXiv 2306.15595); ntk: the base raised so that the
slowest pair of features turns as under linear and the fastest as before (`ntk_theta`); yarn: each pair between the two by how
often it turned in the trained length, and sharper attention (arXiv 2309.00071)."""


class RopeScaling(Spec):
    """How transformers stretches a model's rotary positions over `factor` times the length of its pretraining."""

    kind: Literal["linear", "yarn", "llama3"]
    """llama3: slow pairs of features divided by the factor, fast ones left, those between blended (Llama 3.1)."""
    factor: float = Field(ge=1)
    original: Count
    """Tokens of the sequences that the model was pretrained on."""
    low_freq_factor: float = Field(default=1.0, gt=0)
    """Of "llama3": pairs that turn less often in `original` tokens are the slow ones."""
    high_freq_factor: float = Field(default=4.0, gt=0)
    """Of "llama3": pairs that turn more often are the fast ones."""
    mscale: float | None = None
    """Of "yarn" in DeepSeek's models, which sharpen attention by it and `mscale_all_dim` (arXiv 2405.04434 §3.1.4)."""
    mscale_all_dim: float | None = None


def ntk_theta(theta: float, factor: float, turned: int) -> float:
    """theta·factor^(d / (d - 2)): the NTK-aware base (arXiv 2309.00071 §3.1) where d features of a head are `turned`."""
    return float(theta * factor ** (turned / (turned - 2)))


def stretched(model: ModelSpec, trained: int, seq_len: int, method: Stretch, theta: float | None = None) -> ModelSpec:
    """`model`, trained at `trained` tokens, with positions for `seq_len` of them; `theta` is another base to begin from.

    Stretching again counts linear's and YaRN's factor from the first length, and raises NTK's base further. Linear or YaRN
    after NTK count from `trained`: the raised base is then the model's own. Raises `LabError` where there is nothing to
    stretch, and where another method would undo the stretch that the model has learned.
    """
    if seq_len <= trained:
        raise LabError(f"seq_len={seq_len} is not longer than the {trained} tokens that the model was trained at")
    if model.positions != "rope" or model.mla:
        raise LabError(
            f"family={model.family!r} has no rotary positions that the lab can stretch; train at seq_len={trained}"
        )
    if model.rope_scaling and model.rope_scaling.kind == "llama3":
        raise LabError(f"method={method!r}: the model's positions are stretched as Llama 3.1's; the lab trains it as it is, at up to {model.max_seq_len} tokens, and cannot stretch it further")  # fmt: skip
    if model.rope_scaling and method != model.rope_scaling.kind:
        raise LabError(f"method={method!r}: the model's positions are stretched by {model.rope_scaling.kind} ×{model.rope_scaling.factor:g} already, which another method would undo; go on with method={model.rope_scaling.kind!r}")  # fmt: skip
    if method == "none" and theta is None:
        raise LabError("method='none' leaves positions as they were; give theta, a larger base, or another method")
    base = theta or model.rope_theta
    if method == "ntk":
        base = ntk_theta(base, seq_len / trained, round(model.head_dim * model.traits.turned))
    scaling = None
    if method in ("linear", "yarn"):
        first = model.rope_scaling or RopeScaling(kind=method, factor=1.0, original=trained)
        scaling = first.replace(factor=max(first.factor, seq_len / first.original))  # less would undo some of it
    return model.replace(max_seq_len=max(seq_len, model.max_seq_len), rope_theta=base, rope_scaling=scaling)
