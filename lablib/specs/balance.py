"""What keeps the experts of a mixture-of-experts model in equal use while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec

if TYPE_CHECKING:
    from lablib.specs.model import ModelSpec

SELECTS_BY_BIAS = ("deepseek_v3", "glm4_moe")
"""Families whose routers have sigmoid scores and a bias for the selection alone."""


class Balance(Spec):
    """Losses on the routers of each layer, added to the gradient alone, and DeepSeek's bias, which needs no loss.

    Everything is a figure of the whole step or of whole sequences, so that it does not depend on the layout.
    """

    loss: float = Field(default=0.0, ge=0)
    """Weight of a layer's load-balance loss over all tokens of the step, 1 where they are spread evenly (1e-2 in Switch
    Transformers, arXiv 2101.03961 §2.2)."""
    sequence_loss: float = Field(default=0.0, ge=0)
    """Weight of the same loss inside each sequence (1e-4 in DeepSeek-V3, arXiv 2412.19437 §4.2)."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log²Z of a softmax router (1e-3 in ST-MoE, arXiv 2202.08906 §3.2)."""
    bias_rate: float = Field(default=0.0, ge=0)
    """What a step adds to the selection bias of an expert with less than the mean load, and takes from one with more (1e-3 in
    DeepSeek-V3, arXiv 2412.19437 §4.2)."""
    bias_frozen: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps, the last ones, in which the bias stays (DeepSeek-V3: 0.5 of 14.8T tokens, 0.034)."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.loss or self.sequence_loss or self.z_loss or self.bias_rate):
            raise ValueError("it does nothing; give loss, sequence_loss, z_loss or bias_rate, or leave balance out")
        if self.bias_frozen and not self.bias_rate:
            raise ValueError(f"bias_frozen={self.bias_frozen} needs a bias_rate; give one, or leave it out")
        return self

    @classmethod
    def usual(cls, model: ModelSpec) -> Self | None:
        """What was published for the model's kind of router, DeepSeek-V3's or Switch's numbers; None without several experts."""
        if model.moe is None or model.moe.experts == 1:
            return None
        return cls(bias_rate=1e-3, sequence_loss=1e-4) if model.family in SELECTS_BY_BIAS else cls(loss=1e-2)
