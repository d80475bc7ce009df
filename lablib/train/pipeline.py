"""Pipeline parallelism: micro-batches go through the stages of the model in the order of a schedule of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, schedules
from torch.utils._pytree import tree_map

from lablib.models.context import Masks, computed_in, context_masks
from lablib.models.layout import Place, share_gradients
from lablib.models.stages import Stage, stage_numbers
from lablib.train.losses import TokenLosses

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from lablib.specs import Parallelism
    from lablib.specs.recipe import CrossEntropy

_SCHEDULES = {
    ("gpipe", False): schedules.ScheduleGPipe,
    ("gpipe", True): schedules.ScheduleLoopedBFS,
    ("1f1b", False): schedules.Schedule1F1B,
    ("1f1b", True): schedules.ScheduleInterleaved1F1B,
    ("zero-bubble", True): schedules.ScheduleInterleavedZeroBubble,
    ("zero-bubble", False): schedules.ScheduleInterleavedZeroBubble,
}
"""torch's schedule by `pp_schedule` and whether a rank has several stages."""


class Part(NamedTuple):
    """What one rank sees of a micro-batch: its slice of each sequence."""

    inputs: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    sequences: torch.Tensor | None
    """Positions of the whole sequences under context or sequence parallelism: what `context_masks` are made of, those of a
    micro-batch when its turn comes."""
    documents: torch.Tensor | None = None
    """As in `lablib.train.batches.Batch`."""


class _Sharing(PipelineStage):
    """A stage whose replicas meet after its last backward pass of a step alone."""

    zero = 3

    def backward_maybe_with_nosync(self, backward_type: Any, bwd_kwargs: Any, last_backward: bool = False) -> Any:
        """As in torch, which does so itself only where the module is FSDP's own."""
        share_gradients(self.submod.model, self.zero, last_backward)
        return super().backward_maybe_with_nosync(backward_type, bwd_kwargs, last_backward)


@dataclass
class Pipeline:
    """The stages of one pipeline rank."""

    stages: Sequence[torch.nn.Module]
    parallelism: Parallelism
    group: ProcessGroup
    device: torch.device
    width: int
    """Last dimension of what goes between stages: the model's `hidden`."""
    dtype: torch.dtype
    """Of what goes between stages."""
    cross_entropy: CrossEntropy = "full"
    z_loss: float = 0.0
    """As `lablib.train.losses.TokenLosses` takes both."""
    _schedule: Any = field(default=None, init=False)
    _count: int = field(default=0, init=False)
    _losses: torch.Tensor = field(default_factory=lambda: torch.zeros(()), init=False)

    def __post_init__(self) -> None:
        """The stages as torch calls them."""
        self._numbers = stage_numbers(self.group.rank(), self.parallelism)
        self._total = self.parallelism.pp * self.parallelism.virtual_stages
        self._modules = [self._module(model, number) for model, number in zip(self.stages, self._numbers, strict=True)]

    def _module(self, model: torch.nn.Module, number: int) -> Stage:
        last = number == self._total - 1
        losses = TokenLosses(model, self.cross_entropy, self.z_loss).of if last else None
        return Stage(model, number == 0, losses, self._masks)

    def _masks(self, sequences: torch.Tensor) -> Masks:
        place, dtype = Place.of(dist.get_rank(), self.parallelism), computed_in(self.device, self.dtype)
        return context_masks(self.stages[0].config, sequences, place.cp_rank, place.cp, dtype)

    def train(self, parts: Sequence[Part], scale: torch.Tensor) -> torch.Tensor:
        """Forward and backward of a step's micro-batches (all of one shape); the sum of their losses, 0 but on the last stage.

        Gradients are those of `scale` times that sum.
        """
        self._losses = torch.zeros((), dtype=torch.float64, device=self.device)
        if len(parts) != self._count:
            self._schedule, self._count = self._build(parts[0], len(parts)), len(parts)
        first, last = 0 in self._numbers, self._total - 1 in self._numbers
        whole = tree_map(lambda *some: None if some[0] is None else torch.cat(some), *parts)
        given = {"positions": whole.positions, "sequences": whole.sequences, "labels": whole.labels if last else None}
        self._schedule.step(
            *((whole.inputs,) if first else ()),
            **{name: value for name, value in given.items() if value is not None},
            target=whole.labels if last else None,
            loss_kwargs={"scale": scale},
            return_outputs=False,
        )
        return self._losses

    @torch.no_grad()
    def losses(self, part: Part) -> torch.Tensor | None:
        """Forward pass alone of one micro-batch: each token's nats (sequences·seq_len,) on the last stage, None on the others."""
        ranks, out = self.parallelism.pp, None
        for module, number in zip(self._modules, self._numbers, strict=True):
            x = part.inputs
            if number > 0:
                x = torch.empty(*self._hidden(part), dtype=self.dtype, device=self.device)
                dist.recv(x, group=self.group, group_src=(number - 1) % ranks)
            out = module(x, part.positions, part.sequences, part.labels)
            if number < self._total - 1:
                dist.send(out.to(self.dtype).contiguous(), group=self.group, group_dst=(number + 1) % ranks)
                out = None
        return out

    def _build(self, part: Part, count: int) -> Any:
        kind = _SCHEDULES[self.parallelism.pp_schedule, len(self._numbers) > 1]
        stages = [self._stage(module, n, part) for module, n in zip(self._modules, self._numbers, strict=True)]
        several = issubclass(kind, schedules.PipelineScheduleMulti)
        return kind(stages if several else stages[0], count, loss_fn=self._loss, scale_grads=False)

    def _stage(self, module: torch.nn.Module, number: int, part: Part) -> PipelineStage:
        def like(*shape: int) -> torch.Tensor:
            return torch.empty(*shape, dtype=self.dtype, device="meta", requires_grad=True)

        shape = part.inputs.to("meta") if number == 0 else like(*self._hidden(part))
        last = number == self._total - 1
        out = torch.empty(part.labels.numel(), device="meta") if last else like(*self._hidden(part))
        stage = _Sharing(
            module, number, self._total, self.device, input_args=(shape,), output_args=(out,), group=self.group
        )
        stage.zero = self.parallelism.zero
        return stage

    def _hidden(self, part: Part) -> tuple[int, int, int]:
        count, length = part.inputs.shape
        return count, length // (self.parallelism.tp if self.parallelism.sequence_parallel else 1), self.width

    def _loss(self, losses: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        loss = losses.sum()
        self._losses += loss.detach()
        return loss * scale
