"""Lay a model out over processes: FSDP2, HSDP, tensor parallelism and their products, by transformers' own plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.distributed import DistributedConfig

from lablib.specs import LabError, Parallelism

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Place:
    """Where one rank stands in the mesh (replicate, shard, tensor), tensor parallelism innermost."""

    dp_rank: int
    """Index among the data-parallel ranks: which sequences are this rank's."""
    dp: int
    """Data-parallel ranks."""
    tp: int
    """Ranks that work on the same sequences."""

    @classmethod
    def of(cls, rank: int, parallelism: Parallelism) -> Place:
        """The place of a global rank; neighbours form a tensor-parallel group, as transformers' mesh has it."""
        return cls(rank // parallelism.tp, parallelism.dp, parallelism.tp)


def distribute(model: PreTrainedModel, parallelism: Parallelism, bf16: bool, device: Any) -> PreTrainedModel:
    """Shard a full model over the processes of this job and put it on `device`; one process keeps it whole.

    `bf16` makes FSDP2 gather weights and compute in bf16 while it keeps and reduces fp32 (elsewhere autocast does it).
    Every rank must hold the same weights. Raises `LabError` where the architecture has no tensor-parallel plan.
    """
    if parallelism.gpus == 1:
        return model.to(device)
    if parallelism.tp > 1 and not model.tp_plan:
        raise LabError(f"parallelism.tp={parallelism.tp}: transformers has no tensor-parallel plan for {model.config.model_type}; set tp=1")  # fmt: skip
    wanted = DistributedConfig(
        tp_size=parallelism.tp,
        fsdp_size=parallelism.dp_shard,
        dp_replicate_size=parallelism.dp_replicate,
        fsdp_mixed_precision=bf16 and parallelism.dp > 1,
    )
    config, _, mesh = type(model).prepare_distribute_model(wanted)
    laid_out = type(model).maybe_distribute_model(model, config, mesh)
    return laid_out.to(device)
