"""One optimiser step: micro-batches forward and backward, one normalisation, one clip, one update."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from lablib.data.loader import IGNORED
from lablib.models.layout import Place
from lablib.train.batches import Batch
from lablib.train.clip import clip_gradients
from lablib.train.distributed import World


@dataclass(frozen=True)
class Outcome:
    """What a step measured, over all ranks."""

    loss: float
    """Mean nats a target token, before the update."""
    grad_norm: float
    """Global L2 norm before clipping."""
    finite: bool
    """Whether the update was made: a loss or a norm that is not finite leaves the weights as they were."""


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

    def __call__(self, batches: Sequence[Batch]) -> Outcome:
        """Train on this rank's micro-batches of one step. Every rank calls it."""
        targets = max(self.total(sum(batch.targets for batch in batches)), 1.0)
        scale = gradient_scale(targets, self.place.dp)
        losses = torch.zeros((), dtype=torch.float64, device=self.world.device)
        apart = WholeGradients(self.model, self.place)
        for number, batch in enumerate(batches, start=1):
            self._reduce_replicas_at_the_end(last=number == len(batches))
            loss = self.loss_sum(batch)
            (loss * scale).backward()
            apart.set_aside()
            losses += loss.detach()
        apart.put_back()
        norm = float(clip_gradients(self.model.parameters(), self.grad_clip))
        mean = self.total(losses) / targets
        finite = bool(torch.isfinite(torch.tensor([mean, norm])).all())
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(mean, norm, finite)

    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """Sum of the targets' cross entropies in nats, fp32.

        No attention mask and no cache: with either, transformers ignores the documents that `positions` mark.
        """
        return self._losses(batch, "sum")

    def sequence_losses(self, batch: Batch) -> torch.Tensor:
        """The same of each sequence, (sequences,)."""
        return self._losses(batch, "none").reshape(batch.labels.shape).sum(1)

    def _losses(self, batch: Batch, reduction: str) -> torch.Tensor:
        with self._precision():
            logits = self.model(input_ids=batch.inputs, position_ids=batch.positions, use_cache=False).logits
        return cross_entropy(
            logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction=reduction
        )

    def total(self, value: torch.Tensor | float) -> float:
        """Sum over the data-parallel ranks; tensor-parallel ranks hold equal values, which count once."""
        exact = torch.as_tensor(value, dtype=torch.float64, device=self.world.device).clone()
        return float(self.world.sum(exact)) / self.place.tp

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def _reduce_replicas_at_the_end(self, last: bool) -> None:
        # Gradients are scattered to their shards after every micro-batch (memory first) but cross between HSDP
        # replicas, over the slower network, once a step.
        if hasattr(self.model, "set_requires_all_reduce"):
            self.model.set_requires_all_reduce(last)


def gradient_scale(targets: float, dp: int) -> float:
    """Factor for a rank's summed loss, so that the gradient is that of the mean over all `targets` of the step.

    The mean is over the targets of all micro-batches and ranks, not a mean of means (huggingface/transformers#37766);
    FSDP2 averages gradients over the `dp` ranks, which the factor `dp` undoes.
    """
    return dp / targets


class WholeGradients:
    """Gradients of parameters that tensor parallelism leaves whole (norms), kept apart from one micro-batch to the next.

    transformers 5.23 sums such a gradient over the tensor-parallel ranks after each accumulation into ``.grad``, so what an
    earlier micro-batch left there would be summed again. FSDP2 clears ``.grad`` itself, so only pure tensor parallelism
    needs this.
    """

    def __init__(self, model: torch.nn.Module, place: Place) -> None:
        """Nothing is kept where `place` has no tensor parallelism, or FSDP2 besides."""
        concerned = place.tp > 1 and place.dp == 1
        self._weights = [weight for weight in model.parameters() if concerned and not isinstance(weight, DTensor)]
        self._held: dict[torch.nn.Parameter, torch.Tensor] = {}

    def set_aside(self) -> None:
        """Move this micro-batch's gradients out of the way."""
        for weight in self._weights:
            if weight.grad is not None:
                self._held[weight] = weight.grad + self._held.get(weight, 0.0)
                weight.grad = None

    def put_back(self) -> None:
        """Give every parameter the sum over its micro-batches."""
        for weight, gradient in self._held.items():
            weight.grad = gradient
