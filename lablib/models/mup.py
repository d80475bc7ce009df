"""Maximal-update parametrisation: what was tuned on a narrow, shallow model stays right for a wide, deep one.

Tensor Programs V (arXiv 2203.03466, table 3) in the form that needs no multiplier in the forward pass, so that a trained
model is a plain transformers model: with m the width over the tuned model's, matrices inside the blocks begin m^-½ times and
the head and routers m^-1 times as large, and AdamW's rate is 1/m for all of these; embeddings, norms and biases stay. With
d the depth over the tuned model's, what a block adds to the residual stream is divided by d (CompleteP, arXiv 2505.01618,
α = 1), here too in the weights: the last matrix of each block begins d^-½ times as large beside the usual 1/√(2·layers),
and moves 1/d times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lablib.models.build import is_residual_projection, multiplies

if TYPE_CHECKING:
    from lablib.specs import ModelSpec
    from lablib.specs.recipe import MuP


@dataclass(frozen=True)
class Scale:
    """Factors of one parameter, relative to what the recipe says."""

    initial: float = 1.0
    rate: float = 1.0


def scales(model: torch.nn.Module, spec: ModelSpec, tuned: MuP) -> dict[str, Scale]:
    """The factors of every parameter, by name. `tuned` is the model that learning rate and init_std were tuned on."""
    width, depth = spec.hidden / tuned.hidden, spec.layers / (tuned.layers or spec.layers)
    inside = hidden_matrices(model)
    found = {}
    for name, weight in model.named_parameters():
        if _reads_out(name, weight, spec):
            found[name] = Scale(1 / width, 1 / width)
        elif name not in inside:
            found[name] = Scale()
        elif is_residual_projection(name, weight):
            found[name] = Scale((width * depth) ** -0.5, 1 / (width * depth))
        else:
            found[name] = Scale(width**-0.5, 1 / width)
    return found


@torch.no_grad()
def scale_initial(model: torch.nn.Module, spec: ModelSpec, tuned: MuP) -> None:
    """Turn the initial weights of `build_model`, in place, into those of the parametrisation."""
    found = scales(model, spec, tuned)
    for name, weight in model.named_parameters():
        weight.mul_(found[name].initial)


def hidden_matrices(model: torch.nn.Module) -> set[str]:
    """Names of the matrices inside the blocks, experts' stacks too: not embedding, head, norms, biases, convolutions or a
    recurrence's decays and mixes.

    These are what Muon and SOAP update; the rest follows AdamW (kellerjordan.github.io/posts/muon, arXiv 2409.11321 §4).
    """
    ends = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    outside = {id(getattr(module, "weight", None)) for module in [*ends, head]}  # other stages' heads have none
    return {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and multiplies(name, weight) and id(weight) not in outside and ".conv" not in name
    }


def _reads_out(name: str, weight: torch.Tensor, spec: ModelSpec) -> bool:
    """Whether a matrix leads from the hidden width to a fixed number of outputs: the head, and routers to experts."""
    router = (
        spec.moe is not None and name.endswith((".gate.weight", ".router.weight")) and len(weight) == spec.moe.experts
    )
    return name == "lm_head.weight" or router
