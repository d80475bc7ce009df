"""`Rule`, one parameter's update, and `Ruled`, the torch optimizer that applies a rule to each group.

A rule's state is a few named tensors laid out like the parameter, so a checkpoint saves it by name and any other layout
reads it back. What is elementwise works on this rank's shard alone; what needs the whole matrix gathers it (`whole`) and
keeps its own part of the result (`lablib.models.seeded.shared_out`), so that every layout makes the update that one process makes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lablib.models.seeded import local

State = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's two, by torch's names."""


class Update(NamedTuple):
    """What `Rule.update` takes."""

    weight: Tensor
    gradient: Tensor
    state: State
    step: int
    rate: float
    decay: float


class Rule(ABC):
    """How one parameter is updated from its gradient."""

    @abstractmethod
    def fresh(self, weight: Tensor) -> State:
        """The state before the first update."""

    @abstractmethod
    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """Change `weight` and `state` in place. `step` is the number of this update, from 1; `decay` is decoupled weight
        decay: weight ← (1 - rate·decay)·weight before the update."""

    def update_all(self, updates: Sequence[Update]) -> None:
        """Update parameters that lie on one mesh; every rank calls it with the same ones. A rule whose work ranks can divide
        between them does so here."""
        for one in updates:
            self.update(*one)


class Ruled(torch.optim.Optimizer):
    """Applies each group's ``rule`` to its parameters; groups also have ``lr`` and ``weight_decay``."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        """Each group: ``params``, ``rule`` (a `Rule`), ``weight_decay``."""
        super().__init__(groups, {"lr": lr})
        self._rules: dict[torch.nn.Parameter, Rule] = {
            weight: group["rule"] for group in self.param_groups for weight in group["params"]
        }

    def held(self, weight: torch.nn.Parameter) -> State:
        """The live state of a parameter, without its count of steps; begun where there is none. Nothing for one that is
        not trained."""
        if weight not in self._rules:
            return {}
        state = self.state[weight]
        if not state:
            state.update(self._rules[weight].fresh(weight), step=torch.tensor(0.0))
        return {name: value for name, value in state.items() if name != "step"}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            updates = []
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.held(weight)
                    self.state[weight]["step"] += 1
                    step = int(self.state[weight]["step"])
                    updates.append(Update(weight, _as_laid_out(weight), state, step, group["lr"], group["weight_decay"]))  # fmt: skip
            group["rule"].update_all(updates)


def zeros(weight: Tensor, *names: str, dtype: torch.dtype | None = None) -> State:
    """State tensors of these names, laid out as the weight; zero, in its own type or another."""
    return {name: torch.zeros_like(weight, dtype=dtype, requires_grad=False) for name in names}


def moments(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> State:
    """The live state tensors of a parameter by name, without its count of steps; begun where there are none."""
    if isinstance(optimizer, Ruled):
        return optimizer.held(weight)
    state: State = optimizer.state[weight]
    for name in set(MOMENTS) - set(state):
        state |= zeros(weight, name)
    return {name: state[name] for name in MOMENTS}


def set_step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Both kinds of optimiser count their updates in each parameter's state, torch's on its device: set all of them."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            device = "cpu" if isinstance(optimizer, Ruled) else weight.device
            optimizer.state[weight]["step"] = torch.tensor(float(step), device=device)


def _as_laid_out(weight: torch.nn.Parameter) -> Tensor:
    # A tensor-parallel embedding's gradient comes whole to every rank, its weight is sharded.
    gradient = weight.grad
    assert gradient is not None
    if not isinstance(gradient, DTensor) or not isinstance(weight, DTensor):
        return gradient
    return gradient if gradient.placements == weight.placements else gradient.redistribute(placements=weight.placements)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def with_local(like: Tensor, part: Tensor) -> Tensor:
    """A tensor laid out as `like`, of which this rank holds `part`."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def decayed(weight: Tensor, rate: float, decay: float) -> None:
    """Decoupled weight decay, in place (arXiv 1711.05101)."""
    if decay:
        local(weight).mul_(1 - rate * decay)
