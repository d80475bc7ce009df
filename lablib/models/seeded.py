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
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lablib.specs import ModelSpec


STEP = (1e-3, 0.1)
"""Range of Mamba's initial steps Δ (arXiv 2312.00752 §3.6, and Mamba-2's after it)."""
STEP_BIASES = (".mamba.dt_bias", ".mamba.dt_proj.bias")


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
            full = _initial(whole, owners, name)
            local(target).copy_(taken(full, [places(target, dim) for dim in range(target.ndim)]))


@torch.no_grad()
def draw_steps(model: nn.Module, seed: int) -> None:
    """Give every Mamba layer of `model`, in place, the steps that its papers begin with: softplus of the bias is log-uniform in
    `STEP`, so that some channels remember a few tokens and others a thousand. transformers' constants (1 in Bamba, 0 in Jamba)
    make steps of about one, after which a state has forgotten."""
    low, high = (math.log(step) for step in STEP)
    with torch.random.fork_rng(devices=[]):
        for name, target in model.named_parameters():
            if name.endswith(STEP_BIASES):
                torch.manual_seed(_key(seed, name))
                step = torch.empty(target.shape).uniform_(low, high).exp()
                bias = step + torch.log(-torch.expm1(-step))  # what softplus turns into the step
                local(target).copy_(taken(bias, [places(target, dim) for dim in range(target.ndim)]))


def _initial(whole: Any, owners: dict[str, nn.Module], name: str) -> Tensor:
    """One whole tensor. Only it has memory while its module and those around it are initialised, in transformers' order; the
    vectors of RWKV, which are computed on the device of one another, have it together."""
    path, _, own = name.rpartition(".")
    try:
        full = _initialised(whole, owners, path, {own})[own]
    except NotImplementedError:  # torch's, for a copy out of a tensor without memory
        full = _initialised(whole, owners, path, {*owners[path]._parameters, *owners[path]._buffers})[own]
    if not torch.isfinite(full.sum()):
        raise RuntimeError(f"{name}: transformers gives {type(whole).__name__} no initial values for this tensor")
    return full


def _initialised(whole: Any, owners: dict[str, nn.Module], path: str, names: Collection[str]) -> dict[str, Tensor]:
    """Tensors of the module at `path`, by their own `names`, after the initialisation of it and of those around it."""
    module, made = owners[path], dict[str, Tensor]()
    empty = {
        own: one for own, one in (module._parameters | module._buffers).items() if own in names and one is not None
    }
    for own, one in empty.items():
        made[own] = torch.full(one.shape, math.nan, dtype=one.dtype, device="cpu")
        _put(module, own, nn.Parameter(made[own], requires_grad=False) if isinstance(one, nn.Parameter) else made[own])
    try:
        while True:
            whole._init_weights(owners[path])
            if not path:
                return made
            path = path.rpartition(".")[0]
    finally:
        for own, one in empty.items():
            _put(module, own, one)


def _put(module: nn.Module, own: str, tensor: Tensor) -> None:
    held: Any = module._parameters if own in module._parameters else module._buffers
    held[own] = tensor


def shared_out(full: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank holds whole, laid out as `like` is: each rank keeps its own part, nothing is sent."""
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=like.placements)


def taken(tensor: Tensor, held: list[Tensor]) -> Tensor:
    """What of a tensor has these places along each dimension, ascending; a view where they lie together, as they do but for
    FSDP2 over tensor parallelism, which interleaves pieces."""
    for dim, at in enumerate(held):
        if len(at) == 0 or int(at[-1] - at[0]) + 1 == len(at):
            tensor = tensor.narrow(dim, int(at[0]) if len(at) else 0, len(at))
        else:
            tensor = tensor.index_select(dim, at.to(tensor.device))
    return tensor


def places(like: Tensor, dim: int) -> Tensor:
    """Which indices of the whole tensor's dimension `dim` this rank holds, ascending; on the CPU."""
    every = torch.arange(like.shape[dim])
    if not isinstance(like, DTensor) or like.placements == (Replicate(),) * like.device_mesh.ndim:
        return every
    mesh, cuts = like.device_mesh, list[Placement]()
    for placement in like.placements:
        if not isinstance(placement, Shard | _StridedShard) or placement.dim % like.ndim != dim:
            cuts.append(Replicate())
        elif isinstance(placement, _StridedShard):
            cuts.append(_StridedShard(0, split_factor=placement.split_factor))
        else:
            cuts.append(Shard(0))
    whole = DTensor.from_local(every.to(mesh.device_type), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return whole.redistribute(placements=cuts).to_local().cpu()


def local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big", signed=True)
