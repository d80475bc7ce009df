"""A transformers model from a `ModelSpec`, with the same initial weights on every layout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from lablib.models.seeded import draw, draw_steps, skeleton
from lablib.specs import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RESIDUAL_PROJECTIONS = frozenset({"o_proj", "down_proj", "out_proj"})
"""Last matrix of an attention, feed-forward (or expert) and Mamba block: what it writes is added to the residual."""
DECAYS = ("A_log", "time_decay", "time_first", "time_mix_key", "time_mix_value", "time_mix_receptance")
"""Parameters of Mamba's and RWKV's recurrences, whatever their shape: a number a channel or state, not a matrix. Their authors
train them without weight decay (github.com/state-spaces/mamba, github.com/BlinkDL/RWKV-LM)."""


def build_model(spec: ModelSpec, seed: int) -> PreTrainedModel:
    """The whole model in fp32 on the CPU with its initial weights: what one process trains."""
    model = skeleton(spec)
    give_memory(model, "cpu")
    initialise(model, spec, seed)
    return model


def give_memory(model: PreTrainedModel, device: Any) -> None:
    """Memory on `device` for a model that has none (meta tensors), with nothing in it; a head that is tied stays so."""
    head = model.get_output_embeddings() if tied(model) else None
    model.to_empty(device=device)
    if head is not None:
        head.weight = model.get_input_embeddings().weight


def tied(model: Any) -> bool:
    """Whether embedding and head are one matrix."""
    ends = [getattr(end, "weight", None) for end in (model.get_input_embeddings(), model.get_output_embeddings())]
    return bool(model.config.tie_word_embeddings) and ends[0] is not None and ends[0] is ends[1]


def initialise(model: torch.nn.Module, spec: ModelSpec, seed: int) -> None:
    """Give a model of `spec`, whole, sharded or a stage of it, its initial weights in place. Nothing is sent.

    Matrices and embeddings are Normal(0, init_std), norms 1, biases 0 (transformers' own initialisation), and
    residual projections Normal(0, init_std / sqrt(2·layers)), so that the variance of the residual stream does not grow
    with depth (GPT-2, Radford et al. 2019 §2.3: two blocks a layer write into it). Recurrences begin as
    their papers have them: Mamba's A at -1, -2, … and its steps as in `draw_steps`, RWKV's decays by channel and layer (its
    matrices are orthogonal and stay so). Each tensor is drawn whole from `seed` and its name, so that every layout starts equal
    (`lablib.models.seeded`).
    """
    draw(model, skeleton(spec), seed)
    draw_steps(model, seed)
    scale_residual_projections(model, spec.layers)


def initialise_derived(model: torch.nn.Module, spec: ModelSpec) -> None:
    """Give a model of `spec` what follows from its shape alone and is never stored: the angles of its positions, for one."""
    kept = set(model.state_dict())
    draw(model, skeleton(spec), 0, {name for name, _ in model.named_buffers() if name not in kept})


@torch.no_grad()
def scale_residual_projections(model: torch.nn.Module, layers: int) -> int:
    """Multiply every residual projection by 1 / sqrt(2·layers); returns how many matrices that were."""
    found = [weight for name, weight in model.named_parameters() if is_residual_projection(name, weight)]
    for weight in found:
        weight.mul_(1 / math.sqrt(2 * layers))
    return len(found)


def is_residual_projection(name: str, weight: torch.Tensor) -> bool:
    """Whether a parameter (by its dotted name) is a matrix, or a stack of experts' matrices, that ends a block."""
    return weight.ndim >= 2 and not RESIDUAL_PROJECTIONS.isdisjoint(name.split(".")[-2:])


def multiplies(name: str, weight: torch.Tensor) -> bool:
    """Whether a parameter (by its dotted name) is what features are multiplied by, a matrix, a stack of them or a convolution:
    not a norm, a bias, or a part of a recurrence (`DECAYS`)."""
    return weight.ndim >= 2 and name.rpartition(".")[2] not in DECAYS
