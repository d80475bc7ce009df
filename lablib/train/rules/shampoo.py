"""Shampoo: a gradient between inverse roots of its covariances (arXiv 1802.09568), in the form of arXiv 2309.06497."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lablib.models.seeded import local, shared_out
from lablib.train.rules.base import MOMENTS, Rule, State, decayed, whole, zeros
from lablib.train.rules.elementwise import adam_direction
from lablib.train.rules.soap import SIDES, sides, squared

EVERY = 10
"""Updates between new inverse roots; before the first ones the direction is Adam's own."""
RIDGE = 1e-6
"""Added to the eigenvalues as a share of the largest one (matrix epsilon of arXiv 2002.09018's code): covariances are rank
deficient for long."""


@dataclass(frozen=True)
class Shampoo(Rule):
    """For matrices inside the blocks. Beside Adam's moments it keeps, for each side of a matrix, the mean of G·Gᵀ (or GᵀG) and
    its inverse fourth root; the first moment between the roots, made as long as Adam's update of it (grafting, arXiv 2309.06497
    §3.2.2), is the update. All of the state is sharded as SOAP's, and so is the limit on long sides."""

    betas: tuple[float, float]
    eps: float

    def fresh(self, weight: Tensor) -> State:
        """Moments, and covariance and root of each side that is not too long; zero."""
        return zeros(weight, *MOMENTS) | sides(weight, "covariance", "root")

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`; every rank computes the whole update."""
        decayed(weight, rate, decay)
        full = {name: whole(tensor) for name, tensor in state.items()}
        grad = whole(gradient)
        first = full["exp_avg"].lerp_(grad, 1 - self.betas[0])
        second = full["exp_avg_sq"].lerp_(grad.square(), 1 - self.betas[1])
        self._follow(grad, full, step)
        direction = adam = adam_direction(first, second, step, self.betas, self.eps)
        if step >= EVERY:
            turned = _between(first, full)
            norms = [torch.linalg.matrix_norm(one, keepdim=True) for one in (adam, turned)]
            direction = turned * (norms[0] / norms[1].clamp(min=torch.finfo(turned.dtype).tiny))
        local(weight).sub_(local(shared_out(direction, like=weight)), alpha=rate)
        for name, tensor in state.items():
            local(tensor).copy_(local(shared_out(full[name], like=tensor)))

    def _follow(self, grad: Tensor, full: State, step: int) -> None:
        """Take the gradient into the covariances, and their roots anew where that is due."""
        kept = {side: axis for side, axis in SIDES.items() if f"root_{side}" in full}
        for side, axis in kept.items():
            covariance = full[f"covariance_{side}"].lerp_(squared(grad, axis), 1 - self.betas[1])
            if step % EVERY == 0:
                full[f"root_{side}"] = inverse_root(covariance / (1 - self.betas[1] ** step), 2 * len(kept))


def inverse_root(matrix: Tensor, order: int) -> Tensor:
    """(M + ridge)^(-1/order) of symmetric matrices (..., n, n) without negative eigenvalues but for rounding; of nothing but
    zeros, as of an expert that no token has reached, the identity."""
    values, vectors = torch.linalg.eigh(matrix)
    values, largest = values.clamp(min=0.0), values[..., -1:]
    ridge = torch.where(largest > 0, RIDGE * largest, 1.0)
    return vectors * (values + ridge).pow(-1 / order).unsqueeze(-2) @ vectors.mT


def _between(matrix: Tensor, full: State) -> Tensor:
    """L·M·R, with what there is of the roots."""
    rows, columns = full.get("root_rows"), full.get("root_columns")
    matrix = matrix if rows is None else rows @ matrix
    return matrix if columns is None else matrix @ columns
