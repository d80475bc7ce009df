"""The compute budget by model size, as the guide's Figure 4 draws it: FLOPs and GPU-days for each size and diet."""

from __future__ import annotations

from typing import NamedTuple

from lablib.plan.conventions import HEALTHY
from lablib.specs import Accelerator, LabError, catalog

CHINCHILLA = 20.0
"""Tokens a parameter that minimise loss for a budget (arXiv 2203.15556 §3; the guide §6.1)."""
OVERTRAINED = 15e12
"""Tokens of a model trained for cheap serving (Llama 3 saw 15T at every size: arXiv 2407.21783 §3)."""
SIZES = (1e9, 3e9, 8e9, 13e9, 34e9, 70e9, 180e9, 405e9)
"""Parameters of the usual dense sizes."""


class Budget(NamedTuple):
    """What one size takes. GPU-days run from a high MFU to a low one."""

    parameters: float
    diet: str
    """"chinchilla" or "15T"."""
    tokens: float
    flops: float
    gpu_days_low: float
    gpu_days_high: float

    @property
    def tokens_per_parameter(self) -> float:
        """D / N: 20 is Chinchilla's, about 1,900 Llama-3-8B's."""
        return self.tokens / self.parameters


def budgets(
    accelerator: Accelerator | str = "h100-sxm",
    sizes: tuple[float, ...] = SIZES,
    precision: str = "bf16",
    mfu: tuple[float, float] = HEALTHY,
) -> list[Budget]:
    """6·N·D for each size, at 20 tokens a parameter and at 15T tokens, in days of one accelerator.

    Raises `LabError` where the accelerator has no published peak in that precision.
    """
    card = catalog.accelerators[accelerator] if isinstance(accelerator, str) else accelerator
    peak = card.peak(precision)
    if peak is None:
        raise LabError(f"{card.name} has no published {precision} peak; choose another precision or accelerator")
    return [_budget(n, diet, d, peak, mfu) for n in sizes for diet, d in (("chinchilla", CHINCHILLA * n), ("15T", OVERTRAINED))]  # fmt: skip


def _budget(parameters: float, diet: str, tokens: float, peak: float, mfu: tuple[float, float]) -> Budget:
    flops = 6.0 * parameters * tokens
    low, high = mfu
    day = 86400.0 * peak
    return Budget(parameters, diet, tokens, flops, flops / (day * high), flops / (day * low))
