"""AdamW with the right groups: weight decay on matrices only, and never two meshes in one group."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lablib.specs import Optimizer


def decays(model: torch.nn.Module) -> dict[str, bool]:
    """For each trainable parameter's name, whether weight decay applies to it.

    It does to matrices (and stacks of experts' matrices), not to norms, biases and other vectors, nor to embeddings:
    most rows of an embedding get no gradient in a step and would only shrink. A head tied to the embedding is one.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    return {
        name: weight.ndim >= 2 and id(weight) not in embeddings
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups, split by weight decay and by device mesh (one fused update cannot mix two meshes).

    Every trainable parameter is in exactly one group; raises RuntimeError if that ever fails to hold.
    """
    decay = decays(model)
    groups: dict[tuple[bool, int | None], list[torch.nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            mesh = id(weight.device_mesh) if isinstance(weight, DTensor) else None
            groups[decay[name], mesh].append(weight)
    check_partition(model, [weight for group in groups.values() for weight in group])
    return [{"params": group, "weight_decay": weight_decay * key[0]} for key, group in groups.items()]


def check_partition(model: torch.nn.Module, grouped: list[torch.nn.Parameter]) -> None:
    """Raises RuntimeError unless `grouped` holds each trainable parameter of `model` exactly once."""
    wanted = sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    if sorted(map(id, grouped)) != wanted:
        raise RuntimeError(
            f"optimizer groups hold {len(grouped)} parameters, the model has {len(wanted)}: not a partition"
        )


def build_optimizer(model: torch.nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) in torch's fused form, which CPU and CUDA both have; the loop sets the learning rate."""
    groups = parameter_groups(model, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The learning rate of the next step, in every group."""
    for group in optimizer.param_groups:
        group["lr"] = value
