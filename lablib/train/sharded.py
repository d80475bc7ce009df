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
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import _StridedShard

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
    """Fill `tensors` in place from what `save_tensors` wrote, under whatever layout. Raises where a name is missing."""
    wanted = {name: _contiguous(tensor.detach()) for name, tensor in tensors.items()}
    with _one_process_is_fine():
        dcp.load(wanted, storage_reader=HuggingFaceStorageReader(str(folder)))
    for name, target in tensors.items():
        found = wanted[name]
        if isinstance(found, DTensor) and isinstance(target, DTensor):
            target.to_local().copy_(found.redistribute(placements=target.placements).to_local())
        elif found.data_ptr() != target.data_ptr():
            target.copy_(found)


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
    # FSDP2 over tensor parallelism interleaves the pieces of one dimension; a checkpoint describes a shard by one
    # rectangle, so such a tensor is first redistributed to plain shards.
    if not isinstance(tensor, DTensor):
        return tensor
    plain = tuple(Shard(p.dim) if isinstance(p, _StridedShard) else p for p in tensor.placements)
    return tensor if plain == tensor.placements else tensor.redistribute(placements=plain)
