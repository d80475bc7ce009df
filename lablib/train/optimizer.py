"""Which update each parameter gets: groups by rule, by weight decay and by device mesh, that cover each exactly once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lablib.specs import Optimizer
from lablib.train.rules.adafactor import Adafactor
from lablib.train.rules.base import Rule, Ruled
from lablib.train.rules.elementwise import SGD, AdamW, AdamW16, Lion
from lablib.train.rules.muon import Muon
from lablib.train.rules.soap import SOAP


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


def hidden_matrices(model: torch.nn.Module) -> set[str]:
    """Names of the matrices inside the blocks, experts' stacks too: not embedding, head, norms, biases or convolutions.

    These are what Muon and SOAP update; the rest follows AdamW (kellerjordan.github.io/posts/muon, arXiv 2409.11321 §4).
    """
    ends = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    outside = {id(module.weight) for module in [*ends, *([] if head is None else [head])]}
    return {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim >= 2 and id(weight) not in outside and ".conv" not in name
    }


def parameter_groups(model: torch.nn.Module, weight_decay: float, rules: dict[str, Rule] | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """An optimiser's groups, split by rule (`rules`, by parameter name), by weight decay and by device mesh (one fused
    update cannot mix two meshes).

    Every trainable parameter is in exactly one group; raises RuntimeError if that ever fails to hold.
    """
    decay = decays(model)
    groups: dict[tuple[Rule | None, bool, int | None], list[torch.nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            mesh = id(weight.device_mesh) if isinstance(weight, DTensor) else None
            groups[rules[name] if rules else None, decay[name], mesh].append(weight)
    check_partition(model, [weight for group in groups.values() for weight in group])
    return [
        {"params": group, "weight_decay": weight_decay * decayed, **({"rule": rule} if rule else {})}
        for (rule, decayed, _), group in groups.items()
    ]


def check_partition(model: torch.nn.Module, grouped: list[torch.nn.Parameter]) -> None:
    """Raises RuntimeError unless `grouped` holds each trainable parameter of `model` exactly once."""
    wanted = sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    if sorted(map(id, grouped)) != wanted:
        raise RuntimeError(
            f"optimizer groups hold {len(grouped)} parameters, the model has {len(wanted)}: not a partition"
        )


def build_optimizer(model: torch.nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of `settings.kind`; the loop sets the learning rate.

    "adamw" is torch's fused AdamW (arXiv 1711.05101), which CPU and CUDA both have; the others are in `lablib.train.rules`.
    """
    rate = settings.learning_rate
    if settings.kind == "adamw":
        groups = parameter_groups(model, settings.weight_decay)
        return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, eps=settings.eps, fused=True)
    return Ruled(parameter_groups(model, settings.weight_decay, rules(model, settings)), rate)


def rules(model: torch.nn.Module, settings: Optimizer) -> dict[str, Rule]:
    """The rule of each trainable parameter, by name; equal rules are one group. Raises KeyError for a kind that has none."""
    betas, eps = settings.betas, settings.eps
    rest: Rule = AdamW(betas, eps)
    everywhere = {
        "adamw-bf16": AdamW16(betas, eps),
        "adafactor": Adafactor(),
        "lion": Lion(betas),
        "sgd": SGD(settings.momentum),
    }
    inside: dict[str, Rule] = {"muon": Muon(settings.momentum), "soap": SOAP(betas, eps)}
    hidden = hidden_matrices(model) if settings.kind in inside else set()
    rest = rest if hidden else everywhere[settings.kind]
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {name: inside[settings.kind] if name in hidden else rest for name in names}


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The learning rate of the next step, in every group."""
    for group in optimizer.param_groups:
        group["lr"] = value
