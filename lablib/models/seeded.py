"""Initial weights drawn one tensor at a time, each from the seed and its own name: the same ones on every layout.

A rank draws whole each tensor that it has a part of, keeps that part and lets the rest go before the next, so that it never
holds more than its shard and one tensor: a model may be larger than any host.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lablib.specs import ModelSpec


def skeleton(spec: ModelSpec) -> PreTrainedModel:
    """The model in fp32 without memory (meta tensors): shapes, names and plans."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(spec.to_hf(), dtype=torch.float32)


@torch.no_grad()
def draw(model: nn.Module, whole: PreTrainedModel, seed: int, only: Collection[str] | None = None) -> None:
    """Fill every parameter and buffer of `model` (of these names `only`), in place, with transformers' own initialisation.

    `model` is all of `whole` (a `skeleton`) or a part of it under the same names, sharded or not; it may lie on any device, the
    numbers are those of the CPU. Raises RuntimeError for a tensor that transformers leaves as it was.
    """
    model.state_dict()  # after an evaluation FSDP2 may hold weights gathered; its hook puts the shards back
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    targets = {name: one for name, one in named.items() if only is None or name in only}
    owners = dict(whole.named_modules())
    with torch.random.fork_rng(devices=[]):
        for name, target in targets.items():
            torch.manual_seed(_key(seed, name))
            full = _initial(whole, owners, name).to(target.device)
            local(target).copy_(local(shared_out(full, like=target)))


def _initial(whole: Any, owners: dict[str, nn.Module], name: str) -> Tensor:
    """One whole tensor. Only it has memory while its module and those around it are initialised, in transformers' order."""
    path, _, own = name.rpartition(".")
    module = owners[path]
    held: Any = module._parameters if own in module._parameters else module._buffers
    empty = held[own]
    full = torch.full(empty.shape, math.nan, dtype=empty.dtype, device="cpu")
    held[own] = nn.Parameter(full, requires_grad=False) if isinstance(empty, nn.Parameter) else full
    try:
        while True:
            whole._init_weights(owners[path])
            if not path:
                break
            path = path.rpartition(".")[0]
    finally:
        held[own] = empty
    if not torch.isfinite(full.sum()):
        raise RuntimeError(f"{name}: transformers gives {type(whole).__name__} no initial values for this tensor")
    return full


def shared_out(full: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank holds whole, laid out as `like` is: each rank keeps its own part, nothing is sent."""
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=like.placements)


def local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big", signed=True)
