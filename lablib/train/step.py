"""One optimiser step: micro-batches forward and backward, one normalisation, one clip, one update."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed import all_reduce

from lablib.models.context import Masks, computed_in, context_masks, own_slice
from lablib.models.layout import (
    ALONE,
    Links,
    Place,
    share_gradients,
    sum_partial_gradients,
    sum_tied_gradients,
    tied_end,
)
from lablib.specs.recipe import CrossEntropy
from lablib.train.batches import Batch
from lablib.train.clip import clip_gradients
from lablib.train.distributed import World
from lablib.train.losses import TokenLosses
from lablib.train.pipeline import Part, Pipeline
from lablib.train.routing import Routing

SAME = 1e-3
"""Relative difference up to which two computations of one step agree: sums in another order differ far less, a flipped bit
that makes a step surprising far more."""


@dataclass(frozen=True)
class Tried:
    """One of two computations of the same step on the same weights."""

    loss: float
    grad_norm: float
    nodes: tuple[str, ...] = ()
    """Nodes whose own part of the loss came out different the second time."""

    def agrees(self, other: Tried | Outcome) -> bool:
        """Whether both are the same up to rounding; what is not finite agrees with its like."""
        pairs = (self.loss, other.loss), (self.grad_norm, other.grad_norm)
        return all(_same(a, b) for a, b in pairs)


@dataclass(frozen=True)
class Outcome:
    """What a step measured, over all ranks."""

    loss: float
    """Mean nats a target token, before the update."""
    grad_norm: float
    """Global L2 norm before clipping."""
    finite: bool
    """Whether the update was made: a loss or a norm that is not finite leaves the weights as they were."""
    before: Tried | None = None
    """What a step that was computed twice gave the first time; the second one's gradient was used."""
    routed: torch.Tensor | None = None
    """What the routers of an MoE did (`lablib.train.routing.Routing.end`), on the device."""


def trusting(loss: float, grad_norm: float) -> bool:
    """Doubts no step."""
    return False


@dataclass(frozen=True)
class Stepper:
    """The model and what a step needs to know of the layout."""

    model: Any
    optimizer: torch.optim.Optimizer
    world: World
    place: Place
    grad_clip: float
    autocast: bool
    """Compute in bf16 under autocast: where FSDP2's own mixed precision does not do it."""
    links: Links = ALONE
    partial: tuple[str, ...] = ()
    """`lablib.models.layout.Laid.partial`."""
    pipeline: Pipeline | None = None
    zero: int = 3
    cross_entropy: CrossEntropy = "full"
    """As in `lablib.train.losses`."""
    z_loss: float = 0.0
    """Coefficient of `lablib.train.losses.token_losses`."""
    routing: Routing | None = None
    """The routers of a model with experts."""

    def __call__(self, batches: Sequence[Batch], doubts: Callable[[float, float], bool] = trusting) -> Outcome:
        """Train on this rank's micro-batches of one step. Every rank calls it.

        Where `doubts` (of loss and gradient norm; every rank must answer alike) is true the step is computed once more before
        its update: the same data and weights must give the same.
        """
        mean, norm, own, routed = self._gradients(batches)
        before = None
        if doubts(mean, norm):
            self.optimizer.zero_grad(set_to_none=True)
            first, (mean, norm, again, routed) = Tried(mean, norm), self._gradients(batches)
            nodes = self.world.collect("" if _same(own, again) else socket.gethostname())
            before = replace(first, nodes=tuple(sorted({node for node in nodes if node})))
        finite = math.isfinite(mean) and math.isfinite(norm)
        if finite:
            self.optimizer.step()
            if self.routing is not None:
                self.routing.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(mean, norm, finite, before, routed)

    def _gradients(self, batches: Sequence[Batch]) -> tuple[float, float, float, torch.Tensor | None]:
        """Leave the step's clipped gradient in the weights: mean loss, norm before clipping, this rank's sum of losses, and what
        routers did.

        Nothing is read from the device before the end: the host waits for it once a computation of a step.
        """
        targets = self.summed(torch.stack([batch.targets for batch in batches]).sum()).clamp(min=1)
        scale = gradient_scale(targets, self.place.dp * self.place.cp).float()
        if self.routing is not None:
            self.routing.begin(batches)
        losses = self._backward(batches, scale)
        routed = self.routing.end() if self.routing is not None else None
        sum_partial_gradients(self.model, self.partial, self.links)
        sum_tied_gradients(self.model, self.links)
        counted = None if self.place.pp_rank == 0 else tied_end(self.model, self.links)
        norm = clip_gradients(self.model.parameters(), self.grad_clip, self.links.pp, elsewhere=counted)
        mean, length, own = torch.stack([self.summed(losses) / targets, norm.double(), losses]).tolist()
        return mean, length, own, routed

    def _backward(self, batches: Sequence[Batch], scale: torch.Tensor) -> torch.Tensor:
        if self.pipeline is not None:
            with self._precision():
                losses = self.pipeline.train([self._part(batch) for batch in batches], scale)
            return self._over_slices(losses)
        losses = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for number, batch in enumerate(batches, start=1):
            share_gradients(self.model, self.zero, last=number == len(batches))
            loss = self.loss_sum(batch)
            (loss * scale).backward()
            losses += loss.detach()
        return self._over_slices(losses)

    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """Sum of the targets' cross entropies in nats, fp32, over this rank's slice of the sequences."""
        part = self._part(batch)
        with self._precision():
            return self._token_losses.sum(part, self._masks(part))

    def sequence_losses(self, batch: Batch) -> torch.Tensor:
        """The same of each whole sequence, (sequences,), without a gradient; 0 on all but the last pipeline stage."""
        losses = self._losses(batch).detach().reshape(len(batch.labels), -1).sum(1)
        return self._over_slices(losses)

    def _losses(self, batch: Batch) -> torch.Tensor:
        part = self._part(batch)
        with self._precision():
            if self.pipeline is None:
                return self._token_losses(part, self._masks(part))
            losses = self.pipeline.losses(part)
        return torch.zeros(part.labels.numel(), device=self.world.device) if losses is None else losses

    @property
    def _token_losses(self) -> TokenLosses:
        return TokenLosses(self.model, self.cross_entropy, self.z_loss)

    def _part(self, batch: Batch) -> Part:
        place = self.place
        if not place.sliced:
            return Part(batch.inputs, batch.labels, batch.positions, None, batch.documents)
        own = own_slice(batch.inputs.shape[1], place.cp_rank, place.cp)
        return Part(batch.inputs[:, own], batch.labels[:, own], batch.positions[:, own], batch.positions)

    def _masks(self, part: Part) -> Masks | None:
        if part.sequences is None:
            return None
        laid = getattr(self.model.config, "distributed_config", None)
        gathered = torch.bfloat16 if laid is not None and laid.fsdp_mixed_precision else torch.float32
        place, dtype = self.place, computed_in(self.world.device, gathered)
        return context_masks(self.model.config, part.sequences, place.cp_rank, place.cp, dtype)

    def _over_slices(self, values: torch.Tensor) -> torch.Tensor:
        if self.links.cp is not None:
            all_reduce(values, group=self.links.cp)
        return values

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the data-parallel ranks, float64 on the device; others work on the same sequences, so one of them counts."""
        return self.world.sum(values.to(self.world.device, torch.float64) * self.place.speaks)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, torch.bfloat16) if self.autocast else nullcontext()


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME) or (not math.isfinite(one) and not math.isfinite(other))


def gradient_scale(targets: torch.Tensor, ranks: int) -> torch.Tensor:
    """Factor for a rank's summed loss, so that the gradient is that of the mean over all `targets` of the step.

    The mean is over the targets of all micro-batches and ranks, not a mean of means (huggingface/transformers#37766);
    FSDP2 averages gradients over the `ranks` that see different tokens, which the factor `ranks` undoes.
    """
    return ranks / targets
