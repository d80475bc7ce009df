"""The processes of one job: who this rank is, and the few things that ranks must agree on."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lablib.specs import LabError

T = TypeVar("T")
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TIMEOUT = timedelta(minutes=30)
"""Longest wait for another rank: shards of a large model may take that long to load."""


@dataclass(frozen=True)
class World:
    """This process among the job's processes; with one process every operation is local."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    """How these processes talk; None is the job's own way."""

    def apart(self) -> World:
        """The same processes over a group of their own on the host, so that a thread can talk beside the training. Every
        rank calls it."""
        group = dist.new_group(backend="gloo", timeout=_TIMEOUT) if self.size > 1 else None
        return replace(self, device=torch.device("cpu"), group=group)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place; the same bits on each rank."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; one decision for all."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Every rank's `values` (n,) as (ranks, n), on every rank."""
        if self.size == 1:
            return values[None]
        found = values.new_empty(self.size * len(values))
        dist.all_gather_into_tensor(found, values)
        return found.reshape(self.size, len(values))

    def from_main(self, work: Callable[[], T]) -> T:
        """Do `work` on rank 0 alone and give its (JSON-like) value to every rank.

        Where it raises `LabError` every rank raises the same, so that none waits for ever.
        """
        if self.size == 1:
            return work()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = work()
            except LabError as error:
                box[1] = str(error)
        dist.broadcast_object_list(box, src=0, device=self.device, group=self.group)
        if box[1] is not None:
            raise LabError(box[1])
        value: T = box[0]
        return value

    def collect(self, value: T) -> list[T]:
        """Every rank's value (JSON-like), in rank order, on every rank."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return [item for item in found if item is not None]

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.size > 1:
            dist.barrier(self.group, device_ids=[self.device.index] if self.device.type == "cuda" else None)


@contextmanager
def joined(processes: int, threads: int = 1) -> Iterator[World]:
    """Join the job that the environment describes (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), leave at exit.

    `processes` is how many the recipe's layout needs, `threads` the CPU threads of this one. NCCL where there is CUDA,
    gloo elsewhere. Raises `LabError` where the environment has another number of processes or is incomplete.
    """
    torch.set_num_threads(threads)
    # Each rank would say at every start that a norm over two mesh dimensions takes two all-reduces, and warn of in-place
    # arithmetic on FSDP outputs, which transformers' decoders do not do (the parity tests would show it).
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != processes:
        raise LabError(f"the recipe's layout needs {processes} processes but WORLD_SIZE={size}; submit it, or start it with torchrun --nproc-per-node={processes}")  # fmt: skip
    if size == 1:
        yield World(0, 1, _device(0))
        return
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise LabError(
            f"WORLD_SIZE={size} but {', '.join(missing)} not set; submit the recipe, or start it with torchrun"
        )
    device = _device(int(os.environ["LOCAL_RANK"]))
    cuda = device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_TIMEOUT, device_id=device if cuda else None)
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise LabError(
            f"LOCAL_RANK={local_rank} but this node shows {torch.cuda.device_count()} GPUs; ask for one GPU a process"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
