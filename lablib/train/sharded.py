"""Tensors of all ranks in one folder of safetensors, each rank writing its shards; any other layout can read them back.

torch's distributed checkpoint does the planning and the resharding, its Hugging Face storage the files: no pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, Placement, Shard, empty
from torch.distributed.tensor.placement_types import _StridedShard

from lablib.models.stored import Reader

Tensors = dict[str, torch.Tensor]


def settled(tensors: Tensors, copied: bool) -> Tensors:
    """This rank's shards as plain rectangles, the live tensors where they are that already, or all `copied` to the host, so
    that training may go on. Every rank calls it."""
    plain = {name: _contiguous(tensor.detach()) for name, tensor in tensors.items()}
    return {name: _copied(tensor) for name, tensor in plain.items()} if copied else plain


def save_tensors(tensors: Tensors, folder: Path, group: ProcessGroup | None = None) -> None:
    """Write this rank's shards (`settled`) into `folder`; every rank calls it with the same names. `group` is what they talk
    over, None the job's own."""
    writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True, enable_consolidation=False)
    with _one_process_is_fine():
        dcp.save(tensors, storage_writer=writer, process_group=group)


@torch.no_grad()
def load_tensors(tensors: Tensors, folder: Path) -> None:
    """Fill `tensors` in place from what `save_tensors` wrote, under whatever layout; every rank calls it with the names of what
    it holds. Beside them a rank holds one tensor at a time. Raises where a name is missing."""
    reader, interleaved = (
        Reader(folder),
        {name: tensor for name, tensor in tensors.items() if _plain(tensor) is not None},
    )
    with _one_process_is_fine():
        dcp.load(
            {name: one.detach() for name, one in tensors.items() if name not in interleaved}, storage_reader=reader
        )
        for name, target in interleaved.items():
            assert isinstance(target, DTensor)
            found = empty(target.shape, dtype=target.dtype, device_mesh=target.device_mesh, placements=_plain(target))
            dcp.load({name: found}, storage_reader=reader, no_dist=True)
            target.to_local().copy_(found.redistribute(placements=target.placements).to_local())


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.to("cpu", copy=True)
    return DTensor(tensor.to_local().to("cpu", copy=True), tensor._spec, requires_grad=False)


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    plain = _plain(tensor)
    return tensor.redistribute(placements=plain) if plain and isinstance(tensor, DTensor) else tensor


def _plain(tensor: torch.Tensor) -> tuple[Placement, ...] | None:
    """Placements that a checkpoint can describe, by one rectangle a rank, where the tensor's own are none: FSDP2 over tensor
    parallelism interleaves the pieces of one dimension."""
    if not isinstance(tensor, DTensor):
        return None
    plain = tuple(Shard(p.dim) if isinstance(p, _StridedShard) else p for p in tensor.placements)
    return None if plain == tensor.placements else plain
