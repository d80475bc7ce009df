"""Adafactor: the second moment of a matrix as one row and one column (arXiv 1804.04235)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lablib.models.seeded import local, shared_out
from lablib.train.rules.base import Rule, State, decayed, whole, with_local

DECAY = -0.8
"""The second moment's beta at step t is 1 - t^DECAY (§7.2)."""
FLOOR = 1e-3
"""Least root mean square of a parameter that its update is relative to (§8)."""
CLIP = 1.0
"""Largest root mean square of an update (§6)."""
_EPSILON = torch.finfo(torch.float32).eps
"""As in torch's Adafactor."""


@dataclass(frozen=True)
class Adafactor(Rule):
    """Without a first moment and with relative steps: the rate is a share of each parameter's root mean square, so about
    1e-2 (§9), not AdamW's 3e-4. The same arithmetic as torch's Adafactor, which cannot be sharded. Row and column means are
    small and whole on every rank."""

    def fresh(self, weight: Tensor) -> State:
        """Row and column means of squares, or the squares of a vector; zero."""
        if weight.ndim < 2:
            return {"variance": torch.zeros_like(weight, requires_grad=False)}
        rows, columns = (*weight.shape[:-1], 1), (*weight.shape[:-2], 1, weight.shape[-1])
        made = {"row_var": rows, "col_var": columns}
        return {name: torch.zeros(shape, dtype=weight.dtype, device=weight.device) for name, shape in made.items()}

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        keep = float(step) ** DECAY
        relative = min(rate, step**-0.5) * _rms(weight).clamp(min=FLOOR)
        decayed(weight, rate, decay)
        if weight.ndim < 2:
            variance = local(state["variance"]).lerp_(local(gradient).square(), keep)
        else:
            variance = _factored(gradient, state, keep)
        update = with_local(gradient, local(gradient) * variance.clamp(min=_EPSILON**2).rsqrt())
        local(weight).sub_(local(update) * (relative / (_rms(update) / CLIP).clamp(min=1.0)))


def _factored(gradient: Tensor, state: State, keep: float) -> Tensor:
    """This rank's part of the second moment that rows and columns stand for, after taking in this gradient."""
    squares = gradient.square()
    row = state["row_var"].lerp_(whole(squares.mean(-1, keepdim=True)), keep)
    column = state["col_var"].lerp_(whole(squares.mean(-2, keepdim=True)), keep)
    scaled = row / row.mean(-2, keepdim=True).clamp(min=_EPSILON)
    parts = [local(shared_out(side.expand(gradient.shape), like=gradient)) for side in (scaled, column)]
    return parts[0] * parts[1]


def _rms(tensor: Tensor) -> Tensor:
    return whole(tensor.square().mean()).sqrt()
