"""Rules whose update of an element depends on that element alone: they run on each rank's shard, with no traffic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from lablib.models.seeded import local
from lablib.train.rules.base import MOMENTS, Rule, State, decayed, zeros


@dataclass(frozen=True)
class AdamW(Rule):
    """AdamW (arXiv 1711.05101, algorithm 2) in torch's fused kernel."""

    betas: tuple[float, float]
    eps: float

    def fresh(self, weight: Tensor) -> State:
        """Both moments, zero."""
        return zeros(weight, *MOMENTS)

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        count = torch.tensor(step - 1.0, device=weight.device)
        first, second = local(state["exp_avg"]), local(state["exp_avg_sq"])
        adamw([local(weight)], [local(gradient)], [first], [second], [], [count], fused=True, amsgrad=False,
              beta1=self.betas[0], beta2=self.betas[1], lr=rate, weight_decay=decay, eps=self.eps, maximize=False)  # fmt: skip


@dataclass(frozen=True)
class AdamW16(Rule):
    """AdamW that keeps both moments in bf16 and computes in fp32: half the state.

    A moment that changes by less than 2⁻⁹ of itself stays: with a second beta up to 0.99 it still follows the gradient,
    at 0.999 it no longer does.
    """

    betas: tuple[float, float]
    eps: float

    def fresh(self, weight: Tensor) -> State:
        """Both moments, zero, bf16."""
        return zeros(weight, *MOMENTS, dtype=torch.bfloat16)

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        decayed(weight, rate, decay)
        grad, kept = local(gradient).float(), [local(state[name]) for name in MOMENTS]
        first = torch.lerp(kept[0].float(), grad, 1 - self.betas[0])
        second = torch.lerp(kept[1].float(), grad.square(), 1 - self.betas[1])
        kept[0].copy_(first)
        kept[1].copy_(second)
        local(weight).sub_(rate * adam_direction(first, second, step, self.betas, self.eps))


@dataclass(frozen=True)
class Lion(Rule):
    """Lion (arXiv 2302.06675, algorithm 2): the sign of an interpolated momentum. Its rate is 3 to 10 times smaller than
    AdamW's and its decay as much larger (§5)."""

    betas: tuple[float, float]

    def fresh(self, weight: Tensor) -> State:
        """The momentum, zero."""
        return zeros(weight, "exp_avg")

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        decayed(weight, rate, decay)
        grad, momentum = local(gradient), local(state["exp_avg"])
        local(weight).sub_(rate * torch.lerp(momentum, grad, 1 - self.betas[0]).sign_())
        momentum.lerp_(grad, 1 - self.betas[1])


@dataclass(frozen=True)
class SGD(Rule):
    """Gradient descent with heavy-ball momentum, m ← μ·m + g."""

    momentum: float

    def fresh(self, weight: Tensor) -> State:
        """The momentum, zero."""
        return zeros(weight, "momentum_buffer")

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        decayed(weight, rate, decay)
        momentum = local(state["momentum_buffer"]).mul_(self.momentum).add_(local(gradient))
        local(weight).sub_(rate * momentum)


def adam_direction(first: Tensor, second: Tensor, step: int, betas: tuple[float, float], eps: float) -> Tensor:
    """Adam's update of unit rate from its moments, with both bias corrections (arXiv 1412.6980, algorithm 1)."""
    return first / (1 - betas[0] ** step) / ((second / (1 - betas[1] ** step)).sqrt() + eps)
