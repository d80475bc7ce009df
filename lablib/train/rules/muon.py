"""Muon: momentum made orthogonal by Newton-Schulz iterations (kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lablib.models.seeded import local
from lablib.train.rules.base import Rule, State, Update, decayed, zeros
from lablib.train.rules.dealing import dealt, rounds

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a·X + b·XXᵀX + c·(XXᵀ)²X: steepest at zero while singular values stay within about 0.7 to 1.2."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of the update, AdamW's typical one, so that its rates and decay carry over (arXiv 2502.16982 §2.2)."""
_EPSILON = 1e-7


@dataclass(frozen=True)
class Muon(Rule):
    """For matrices, and stacks of experts' matrices, inside the blocks. Nesterov momentum; the orthogonal factor of the
    whole matrix times RMS·√(larger side), which is an update of root mean square RMS whatever the shape."""

    momentum: float

    def fresh(self, weight: Tensor) -> State:
        """The momentum, zero."""
        return zeros(weight, "momentum_buffer")

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`; of several that lie on one mesh `update_all` divides the work."""
        self.update_all([Update(weight, gradient, state, step, rate, decay)])

    def update_all(self, updates: Sequence[Update]) -> None:
        """As `Rule.update_all`; each whole matrix is orthogonalised on one of the ranks that hold parts of it."""
        for several in rounds(updates):
            ahead = [self._ahead(one) for one in several]
            for one, direction in zip(several, dealt(ahead, orthogonalised), strict=True):
                size = RMS * math.sqrt(max(one.weight.shape[-2:]))
                local(one.weight).sub_(local(direction), alpha=one.rate * size)

    def _ahead(self, one: Update) -> Tensor:
        """Nesterov's momentum, laid out as the weight, which decays."""
        decayed(one.weight, one.rate, one.decay)
        momentum = one.state["momentum_buffer"]
        local(momentum).lerp_(local(one.gradient), 1 - self.momentum)
        return torch.lerp(one.gradient, momentum, self.momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """About U·Vᵀ of each matrix U·S·Vᵀ in (..., rows, columns): singular values end between 0.7 and 1.2.

    In bf16 on accelerators, whose matmuls it is made for; in fp32 on a CPU.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrices.dtype)
