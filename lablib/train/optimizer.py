"""Which update each parameter gets: groups by rule, by weight decay and by device mesh, that cover each exactly once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lablib.models.build import multiplies
from lablib.models.mup import hidden_matrices
from lablib.specs import Optimizer
from lablib.train.rules.adafactor import Adafactor
from lablib.train.rules.base import Rule, Ruled
from lablib.train.rules.blockwise import AdamW8
from lablib.train.rules.elementwise import SGD, AdamW, AdamW16, Lion
from lablib.train.rules.muon import Muon
from lablib.train.rules.shampoo import Shampoo
from lablib.train.rules.soap import SOAP


def decays(model: torch.nn.Module) -> dict[str, bool]:
    """For each trainable parameter's name, whether weight decay applies to it.

    It does to matrices (and stacks of experts' matrices) and convolutions, not to norms, biases and other vectors, nor to a
    recurrence's decays and mixes (`lablib.models.build.multiplies`), nor to embeddings: most rows of an embedding get no
    gradient in a step and would only shrink. A head tied to the embedding is one.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    return {
        name: multiplies(name, weight) and id(weight) not in embeddings
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def parameter_groups(
    model: torch.nn.Module,
    weight_decay: float,
    rules: dict[str, Rule] | None = None,
    rates: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    """An optimiser's groups, split by rule and by factor of the learning rate (`rules` and `rates`, by parameter name), by
    weight decay and by device mesh (one fused update cannot mix two meshes). Weight decay a step, rate times decay, is the
    same whatever the factor.

    Every trainable parameter is in exactly one group; raises RuntimeError if that ever fails to hold.
    """
    decay = decays(model)
    groups: dict[tuple[Rule | None, bool, int | None, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            mesh = id(weight.device_mesh) if isinstance(weight, DTensor) else None
            factor = rates[name] if rates else 1.0
            groups[rules[name] if rules else None, decay[name], mesh, factor].append(weight)
    check_partition(model, [weight for group in groups.values() for weight in group])
    return [
        {"params": group, "weight_decay": weight_decay * decayed / factor, "factor": factor}
        | ({"rule": rule} if rule else {})
        for (rule, decayed, _, factor), group in groups.items()
    ]


def check_partition(model: torch.nn.Module, grouped: list[torch.nn.Parameter]) -> None:
    """Raises RuntimeError unless `grouped` holds each trainable parameter of `model` exactly once."""
    wanted = sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    if sorted(map(id, grouped)) != wanted:
        raise RuntimeError(
            f"optimizer groups hold {len(grouped)} parameters, the model has {len(wanted)}: not a partition"
        )


def build_optimizer(
    model: torch.nn.Module, settings: Optimizer, rates: dict[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of `settings.kind`; the loop sets the learning rate, which `rates` multiplies by parameter name.

    "adamw" is torch's fused AdamW (arXiv 1711.05101), which CPU and CUDA both have; the others are in `lablib.train.rules`.
    """
    rate = settings.learning_rate
    if settings.kind == "adamw":
        groups = parameter_groups(model, settings.weight_decay, rates=rates)
        return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, eps=settings.eps, fused=True)
    return Ruled(parameter_groups(model, settings.weight_decay, rules(model, settings), rates), rate)


def rules(model: torch.nn.Module, settings: Optimizer) -> dict[str, Rule]:
    """The rule of each trainable parameter, by name; equal rules are one group. Raises KeyError for a kind that has none."""
    betas, eps = settings.betas, settings.eps
    rest: Rule = AdamW(betas, eps)
    everywhere = {
        "adamw-bf16": AdamW16(betas, eps),
        "adamw-8bit": AdamW8(betas, eps),
        "adafactor": Adafactor(),
        "lion": Lion(betas),
        "sgd": SGD(settings.momentum),
    }
    inside: dict[str, Rule] = {
        "muon": Muon(settings.momentum),
        "soap": SOAP(betas, eps),
        "shampoo": Shampoo(betas, eps),
    }
    hidden = hidden_matrices(model) if settings.kind in inside else set()
    rest = rest if hidden else everywhere[settings.kind]
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {name: inside[settings.kind] if name in hidden else rest for name in names}


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The learning rate of the next step, in every group times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = value * group["factor"]
