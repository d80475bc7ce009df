"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321, algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lablib.models.seeded import local, shared_out
from lablib.train.rules.base import MOMENTS, Rule, State, decayed, whole, zeros
from lablib.train.rules.elementwise import adam_direction

EVERY = 10
"""Updates between refreshments of the eigenbases (§6.3)."""
WIDEST = 10_000
"""A side longer than this keeps its own basis, the identity (§4, as in the authors' code)."""
SIDES = {"rows": -2, "columns": -1}


@dataclass(frozen=True)
class SOAP(Rule):
    """For matrices inside the blocks. Beside Adam's moments it keeps, for each side of a matrix, the mean of G·Gᵀ (or GᵀG)
    and its eigenvectors. All of the state is sharded; an update gathers it for one matrix at a time. The first gradient
    only begins the bases, as in the authors' code."""

    betas: tuple[float, float]
    eps: float

    def fresh(self, weight: Tensor) -> State:
        """Moments, and covariance and basis of each side that is not too long; zero."""
        return zeros(weight, *MOMENTS) | sides(weight, "covariance", "basis")

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`; every rank rotates the whole matrix."""
        full = {name: whole(tensor) for name, tensor in state.items()}
        grad = whole(gradient)
        bases = [full.get("basis_rows"), full.get("basis_columns")]
        if step > 1:
            decayed(weight, rate, decay)
            first = full["exp_avg"].lerp_(grad, 1 - self.betas[0])
            second = full["exp_avg_sq"].lerp_(_turned(grad, bases).square(), 1 - self.betas[1])
            direction = adam_direction(_turned(first, bases), second, step - 1, self.betas, self.eps)
            local(weight).sub_(local(shared_out(_turned_back(direction, bases), like=weight)), alpha=rate)
        self._follow(grad, full, step)
        for name, tensor in state.items():
            local(tensor).copy_(local(shared_out(full[name], like=tensor)))

    def _follow(self, grad: Tensor, full: State, step: int) -> None:
        """Take the gradient into both covariances, and turn the bases where that is due; the second moments go along."""
        for side, axis in SIDES.items():
            if f"basis_{side}" not in full:
                continue
            covariance, basis = full[f"covariance_{side}"], full[f"basis_{side}"]
            covariance.lerp_(squared(grad, axis), 1 - self.betas[1])
            if step == 1:
                basis.copy_(torch.linalg.eigh(covariance).eigenvectors.flip(-1))
            elif (step - 1) % EVERY == 0:
                full["exp_avg_sq"] = _refreshed(covariance, basis, full["exp_avg_sq"], axis)


def _refreshed(covariance: Tensor, basis: Tensor, second: Tensor, axis: int) -> Tensor:
    """One round of power iteration and QR, in place on `basis`, largest eigenvalue first; the second moment reordered."""
    powered = covariance @ basis
    order = (basis * powered).sum(-2).argsort(-1, descending=True)
    basis.copy_(torch.linalg.qr(powered.gather(-1, order.unsqueeze(-2).expand_as(powered))).Q)
    moved = order.unsqueeze(-1) if axis == -2 else order.unsqueeze(-2)
    return second.gather(axis, moved.expand_as(second))


def _turned(matrix: Tensor, bases: list[Tensor | None]) -> Tensor:
    """Qₗᵀ·M·Qᵣ."""
    rows, columns = bases
    matrix = matrix if rows is None else rows.mT @ matrix
    return matrix if columns is None else matrix @ columns


def _turned_back(matrix: Tensor, bases: list[Tensor | None]) -> Tensor:
    """Qₗ·M·Qᵣᵀ."""
    rows, columns = bases
    matrix = matrix if rows is None else rows @ matrix
    return matrix if columns is None else matrix @ columns.mT


def sides(weight: Tensor, *kinds: str) -> State:
    """For each side of a matrix that is not too long a square of zeros of each kind, ``<kind>_rows`` and ``<kind>_columns``, laid
    out as the weight."""
    return {
        f"{kind}_{side}": shared_out(_square(weight, axis), like=weight)
        for side, axis in SIDES.items()
        if weight.shape[axis] <= WIDEST
        for kind in kinds
    }


def squared(grad: Tensor, axis: int) -> Tensor:
    """G·Gᵀ of the rows or GᵀG of the columns."""
    return grad @ grad.mT if axis == -2 else grad.mT @ grad


def _square(weight: Tensor, axis: int) -> Tensor:
    side = weight.shape[axis]
    return torch.zeros(*weight.shape[:-2], side, side, dtype=weight.dtype, device=weight.device)
