"""Lay a model out over processes: data, tensor, expert, context and pipeline parallelism, by transformers' own plans."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.distributed import (
    P2POp,
    all_reduce,
    batch_isend_irecv,
    broadcast_object_list,
    get_rank,
    irecv,
    isend,
    recv,
    send,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig
from transformers.distributed.expert_parallel import apply_expert_parallelism
from transformers.distributed.fsdp import apply_fully_sharded_data_parallelism
from transformers.distributed.tensor_parallel import apply_tensor_parallelism
from transformers.distributed.utils import TransformersDeviceMesh

from lablib.models.build import give_memory, tied
from lablib.models.context import attend_over
from lablib.models.decoder import layer_number
from lablib.models.sequence import NORMS, sequence_plan
from lablib.models.stages import cut
from lablib.specs import LabError, Parallelism

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from transformers import PreTrainedModel

_DENSE = ("pp", "dp_replicate", "fsdp", "tp")
_EXPERT = ("pp", "dp_replicate", "efsdp", "ep")
_ALL = ("pp", "dp_replicate", "dp_shard", "cp", "tp")
_PARTIAL = "replicated_with_grad_allreduce"


@dataclass(frozen=True)
class Place:
    """Where one rank stands in the mesh (pipeline, replicate, shard, context, tensor), tensor parallelism innermost."""

    dp_rank: int
    """Index among the data-parallel ranks: which sequences are this rank's."""
    dp: int
    """Data-parallel ranks."""
    tp: int
    """Ranks that work on the same tokens."""
    tp_rank: int = 0
    cp_rank: int = 0
    """Which slice of each sequence is this rank's."""
    cp: int = 1
    pp_rank: int = 0
    """Which stage of the model is this rank's, 0 the one with the embedding."""
    pp: int = 1
    sequence_parallel: bool = False
    """Whether tensor-parallel ranks hold slices of the sequence between their products."""

    @classmethod
    def of(cls, rank: int, parallelism: Parallelism) -> Place:
        """The place of a global rank; neighbours form a tensor-parallel group, as transformers' mesh has it."""
        rest, tp_rank = divmod(rank, parallelism.tp)
        rest, cp_rank = divmod(rest, parallelism.cp)
        pp_rank, dp_rank = divmod(rest, parallelism.dp)
        return cls(
            dp_rank,
            parallelism.dp,
            parallelism.tp,
            tp_rank,
            cp_rank,
            parallelism.cp,
            pp_rank,
            parallelism.pp,
            parallelism.sequence_parallel and parallelism.tp > 1,
        )

    @property
    def sliced(self) -> bool:
        """Whether a rank has slices of sequences, whose attention takes a mask."""
        return self.cp > 1 or self.sequence_parallel

    @property
    def speaks(self) -> bool:
        """Whether this rank's measurements count in sums over all ranks: one rank for each data-parallel rank does."""
        return self.tp_rank == 0 and self.cp_rank == 0 and self.pp_rank == self.pp - 1


@dataclass(frozen=True)
class Links:
    """The meshes of a job; every process builds them together."""

    meshes: TransformersDeviceMesh | None = None
    """transformers' two views of the ranks; FSDP's dimension is dp_shard × cp. None for one process."""
    pp: ProcessGroup | None = None
    """The stages that one micro-batch goes through."""
    cp: ProcessGroup | None = None
    """The ranks that share each sequence."""
    tp: ProcessGroup | None = None

    @classmethod
    def of(cls, parallelism: Parallelism, device: torch.device) -> Links:
        """Collective. `device` is this rank's."""
        one = parallelism
        if one.gpus == 1:
            return ALONE
        fsdp = one.dp_shard * one.cp

        def mesh(names: tuple[str, ...], *sizes: int) -> DeviceMesh:
            return init_device_mesh(device.type, sizes, mesh_dim_names=names)

        dense = mesh(_DENSE, one.pp, one.dp_replicate, fsdp, one.tp)
        expert = mesh(_EXPERT, one.pp, one.dp_replicate, fsdp * one.tp // one.ep, one.ep) if one.ep > 1 else dense
        whole = mesh(_ALL, one.pp, one.dp_replicate, one.dp_shard, one.cp, one.tp) if one.cp > 1 else None
        return cls(
            TransformersDeviceMesh(dense, expert),
            dense.get_group("pp") if one.pp > 1 else None,
            whole.get_group("cp") if whole else None,
            dense.get_group("tp") if one.tp > 1 else None,
        )


ALONE = Links()
"""The links of one process: none."""


@dataclass(frozen=True)
class Laid:
    """A model laid out over the processes, as one rank holds it."""

    model: Any
    """All that this rank holds, under the names of the whole model."""
    stages: tuple[Any, ...]
    """Its pipeline stages; the model itself where there is no pipeline."""
    partial: tuple[str, ...] = ()
    """Parameters that every tensor-parallel rank holds whole but sees only a part of the work of: their gradients are to be
    summed over the tensor-parallel ranks once a step (`sum_partial_gradients`)."""


def distribute(
    model: PreTrainedModel,
    parallelism: Parallelism,
    bf16: bool,
    device: Any,
    links: Links | None = None,
    reduce_bf16: bool = False,
) -> Laid:
    """Shard a model over the processes of this job and put it on `device`; one process keeps it whole.

    A model without memory (`lablib.models.seeded.skeleton`) gets some for this rank's part alone, with nothing in it; of any
    other every rank must hold the same weights.

    `bf16` makes FSDP2 gather weights and compute in bf16 while it keeps fp32 (elsewhere autocast does it); gradients are
    reduced in fp32, or in bf16 with `reduce_bf16`. Raises `LabError` where the architecture has no plan for the layout.
    """
    if parallelism.gpus == 1:
        _put(model, device)
        return Laid(model, (model,))
    links = links or Links.of(parallelism, torch.device(device))
    for kind, plan in (("tp", model.tp_plan), ("ep", model.ep_plan)):
        if getattr(parallelism, kind) > 1 and not plan:
            raise LabError(f"parallelism.{kind}={getattr(parallelism, kind)}: transformers has no plan of this kind for {model.config.model_type}; set {kind}=1")  # fmt: skip
    if links.cp is not None:
        attend_over(model, links.cp)
    stages = [model] if links.pp is None else cut(model, links.pp.rank(), parallelism)
    partial: list[str] = []
    for stage in stages:
        partial += _lay_out(stage, parallelism, bf16, links)
        _put(stage, device)
        _set_sharding(stage, parallelism.zero, reduce_bf16)
    return Laid(model, tuple(stages), tuple(partial))


def _put(model: PreTrainedModel, device: Any) -> None:
    if any(weight.is_meta for weight in model.parameters()):
        give_memory(model, device)
    else:
        model.to(torch.device(device))


def _lay_out(model: Any, parallelism: Parallelism, bf16: bool, links: Links) -> list[str]:
    config = DistributedConfig(
        tp_size=parallelism.tp,
        fsdp_size=parallelism.dp_shard * parallelism.cp,
        dp_replicate_size=parallelism.dp_replicate,
        ep_size=parallelism.ep,
        fsdp_mixed_precision=bf16 and parallelism.dp * parallelism.cp > 1,
    )
    # transformers would sum such a gradient after every micro-batch, together with what earlier ones left there.
    partial = [name for name, style in model.tp_plan.items() if style == _PARTIAL] if parallelism.tp > 1 else []
    model._tp_plan = {name: "replicate" if name in partial else style for name, style in model.tp_plan.items()}
    if parallelism.sequence_parallel and parallelism.tp > 1:
        model._tp_plan = sequence_plan(model, model.tp_plan)
        partial += NORMS
    names = [name for name, _ in model.named_parameters()]
    _apply(model, config, cast(TransformersDeviceMesh, links.meshes))
    wanted = set(partial)
    return [name for name in names if re.sub(r"\.\d+(?=\.)", ".*", name.rpartition(".")[0]) in wanted]


def _apply(model: Any, config: DistributedConfig, meshes: TransformersDeviceMesh) -> None:
    # What `maybe_distribute_model` does, but for a head that is tied to its embedding: transformers 5.23 shards each by
    # itself under FSDP2, so that they train as two matrices, and fails under tensor parallelism.
    model.config.distributed_config = config
    model._mesh_manager, model._device_mesh = meshes, meshes.get_mesh(("pp", "fsdp", "tp"))
    model._tp_size, model._fsdp_size = config.tp_size, config.fsdp_size
    ends = _tied(model)  # FSDP2 shares a matrix between modules of one group: the root's
    model._fsdp_plan = _sharded(model, ends)
    tp_plan, ep_plan, fsdp_plan = model._resolve_parallel_plans(config)
    if config.tp_size > 1:
        head = f"{ends[1]}.weight" if ends else ""
        own = {name: style for name, style in tp_plan.items() if name != head}
        apply_tensor_parallelism(model, meshes.get_mesh("tp"), own)
        if ends:
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
    if "ep_dispatch_experts" in ep_plan.values():
        apply_expert_parallelism(model, meshes.get_mesh("ep"), meshes.get_mesh("tp"), ep_plan)
    if config.dp_size > 1:
        apply_fully_sharded_data_parallelism(model, meshes, fsdp_plan, ep_plan)


def _sharded(model: Any, ends: tuple[str, ...]) -> dict[str, str]:
    """What FSDP2 gathers by itself: transformers' plan but for `ends`, and every decoder layer whatever it is called (its plan
    knows "layers" alone, so that GPT-2 and RWKV would be gathered whole)."""
    names = {re.sub(r"\.\d+(?=\.|$)", ".*", name) for name, _ in model.named_modules()}
    whole = (name for name in names if name.endswith("*") and name.count("*") == 1)
    layers = {name: "free_full_weight" for name in whole if layer_number(name.replace("*", "0")) == 0}
    return layers | {name: style for name, style in model.fsdp_plan.items() if name in names and name not in ends}


def _tied(model: Any) -> tuple[str, ...]:
    """Names of the embedding and the head, in this order, where they are one matrix."""
    if not tied(model):
        return ()
    names = {module: name for name, module in model.named_modules()}
    return names[model.get_input_embeddings()], names[model.get_output_embeddings()]


def _set_sharding(model: torch.nn.Module, zero: int, reduce_bf16: bool) -> None:
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if zero < 3 and isinstance(model, FSDPModule):
        model.set_reshard_after_forward(False)
    if reduce_bf16:
        for group in (group for module in sharded for group in module._get_fsdp_state()._fsdp_param_groups):
            group.mp_policy = replace(group.mp_policy, reduce_dtype=torch.bfloat16)


def share_gradients(model: Any, zero: int, last: bool) -> None:
    """Say what FSDP2 does after the next backward pass, the `last` of its step or not.

    ZeRO-3 and ZeRO-2 scatter gradients to their shards after every micro-batch (memory first), ZeRO-1 once a step; between
    HSDP replicas, over the slower network, they cross once a step in any case. Below ZeRO-3 weights stay gathered from the
    first micro-batch to the last (arXiv 1910.02054 §5).
    """
    if not isinstance(model, FSDPModule):
        return
    if zero == 1:
        model.set_requires_gradient_sync(last)
    else:
        model.set_requires_all_reduce(last)
    if zero < 3:
        model.set_reshard_after_backward(last)


@torch.no_grad()
def sum_partial_gradients(model: torch.nn.Module, partial: tuple[str, ...], links: Links) -> None:
    """Complete the gradients of `Laid.partial` over the tensor-parallel ranks; once a step, after the last backward."""
    weights = dict(model.named_parameters()) if partial else {}
    for name in partial:
        gradient = weights[name].grad
        if gradient is not None:
            all_reduce(gradient.to_local() if isinstance(gradient, DTensor) else gradient, group=links.tp)


def tied_end(model: Any, links: Links) -> torch.nn.Parameter | None:
    """The matrix that the first and the last pipeline stage both hold, a head tied to its embedding; None on other ranks."""
    if links.pp is None or not model.config.tie_word_embeddings or 0 < links.pp.rank() < links.pp.size() - 1:
        return None
    return cast(torch.nn.Parameter, model.get_input_embeddings().weight)


@torch.no_grad()
def sum_tied_gradients(model: Any, links: Links) -> None:
    """Complete the gradient of `tied_end` on both of its stages, once a step: the sum is the same on both, bit for bit, and
    so are the updates that follow."""
    weight, group = tied_end(model, links), links.pp
    if group is None or weight is None or weight.grad is None:
        return
    if isinstance(weight.grad, DTensor) and isinstance(weight, DTensor):  # an embedding's may be whole under TP
        weight.grad = weight.grad.redistribute(placements=weight.placements)
    own = weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad
    other, peer = torch.empty_like(own), 0 if group.rank() else group.size() - 1
    swap = [P2POp(kind, held, group=group, group_peer=peer) for kind, held in ((isend, own), (irecv, other))]
    for work in batch_isend_irecv(swap):
        work.wait()
    own += other


@torch.no_grad()
def whole_model(model: Any, links: Links) -> Any:
    """The model as one process would hold it, on the CPU of rank 0; None on the other ranks. Every rank calls it."""
    if links.meshes is None:
        return model
    main, state = get_rank() == 0, {}
    for stage in range(links.pp.size() if links.pp else 1):
        for name, tensor in _gathered(model, links, stage):
            if main:
                state[name] = tensor.cpu()
    if not main:
        return None
    config = copy.deepcopy(model.config)
    del config.distributed_config
    with torch.device("meta"):
        whole = type(model)._from_config(config, attn_implementation="sdpa" if model._supports_sdpa else "eager")
    whole.load_state_dict(state, assign=True)
    whole.tie_weights()
    return whole


def _gathered(model: Any, links: Links, stage: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors of one pipeline stage, one after the other, on its own ranks and on its pipeline's first rank."""
    own = links.pp is None or links.pp.rank() == stage
    listed: list[Any] = [[(name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()]]
    if links.pp is not None:
        broadcast_object_list(listed, group=links.pp, group_src=stage)
    held = model.state_dict() if own else {}
    device = next(model.parameters()).device
    for name, shape, dtype in listed[0]:
        tensor = held.get(name, torch.empty(0))
        if own:
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if links.pp is not None and stage > 0:
            if own:
                send(tensor.contiguous(), group=links.pp, group_dst=0)
            elif links.pp.rank() == 0:
                tensor = torch.empty(shape, dtype=dtype, device=device)
                recv(tensor, group=links.pp, group_src=stage)
        if own or (links.pp is not None and links.pp.rank() == 0):
            yield name, tensor
