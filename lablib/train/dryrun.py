"""A layout of any number of GPUs laid out on none: every shape that a rank would hold, beside the planner's count.

The model is built without memory (meta tensors) and distributed over a process group that only pretends (torch's fake
backend), by the same code that lays out a real job.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from lablib.models.layout import Links, Place, distribute
from lablib.models.seeded import skeleton
from lablib.plan.memory import states
from lablib.plan.pretraining import job
from lablib.specs import LabError, Pretrain
from lablib.train.able import check

_FP32 = 4
"""Bytes of a weight, a gradient and of each of AdamW's two moments, as the trainer keeps them."""


@dataclass(frozen=True)
class Held:
    """What the fullest rank of a pipeline stage holds between two steps."""

    pp_rank: int
    parameters: int
    """Elements of its shards, counted."""
    tensors: int
    planned_bytes: float
    """Weights, gradients and optimiser states by the planner."""

    @property
    def counted_bytes(self) -> float:
        """The same of the shards: 16 bytes an element in fp32 with AdamW."""
        return 4.0 * _FP32 * self.parameters

    @property
    def excess(self) -> float:
        """Counted over planned, minus one."""
        return self.counted_bytes / self.planned_bytes - 1


def lay_out_dry(recipe: Pretrain) -> tuple[Held, ...]:
    """Lay `recipe` out rank by rank: the first rank of the first, a middle and the last pipeline stage, in order.

    The first rank of a stage holds the larger shards where a dimension does not divide. ZeRO-3 with AdamW is what is counted
    and planned. Takes about a second a stage, whatever the model's size. Raises `LabError` where the layout cannot run.
    """
    layout = recipe.parallelism
    if layout.zero != 3 or recipe.optimizer.kind != "adamw":
        raise LabError(f"parallelism.zero={layout.zero}, optimizer.kind={recipe.optimizer.kind!r}: only shards of ZeRO-3 with adamw are counted; set zero=3 and kind='adamw'")  # fmt: skip
    check(recipe)
    return tuple(_held(recipe, stage) for stage in sorted({0, layout.pp // 2, layout.pp - 1}))


def _held(recipe: Pretrain, stage: int) -> Held:
    layout = recipe.parallelism
    with _pretended(stage * (layout.gpus // layout.pp), layout.gpus) as rank, torch.device("meta"):
        links = Links.of(layout, torch.device("cpu"))
        laid = distribute(skeleton(recipe.model), layout, recipe.precision != "fp32", torch.device("meta"), links)
        weights = list(laid.model.parameters())
        count = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in weights)
        place = Place.of(rank, layout)
    planned = states(job(recipe), place.pp_rank == 0, place.pp_rank == place.pp - 1)
    return Held(place.pp_rank, count, len(weights), float(sum(planned.values())))


@contextmanager
def _pretended(rank: int, size: int) -> Iterator[int]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise LabError("a layout is checked in a process of its own, not inside a distributed job; start a new process")
    if size == 1:
        yield rank
        return
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        yield rank
    finally:
        dist.destroy_process_group()
