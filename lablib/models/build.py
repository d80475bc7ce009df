"""`build_model`: a transformers model from a `ModelSpec`, with the same initial weights on every layout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from lablib.specs import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RESIDUAL_PROJECTIONS = frozenset({"o_proj", "down_proj", "out_proj"})
"""Last matrix of an attention, feed-forward (or expert) and Mamba block: what it writes is added to the residual."""


def build_model(spec: ModelSpec, seed: int) -> PreTrainedModel:
    """The full model in fp32 on the CPU, drawn from `seed`; every rank calls it and then shards the result.

    Matrices and embeddings are Normal(0, init_std), norms 1, biases 0 (transformers' own initialisation), and
    residual projections Normal(0, init_std / sqrt(2·layers)), so that the variance of the residual stream does not grow
    with depth (GPT-2, Radford et al. 2019 §2.3: two blocks a layer write into it). The full model is drawn before
    sharding because ranks that each draw their own shard from one seed would draw copies of one another.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(spec.to_hf(), dtype=torch.float32)
    scale_residual_projections(model, spec.layers)
    return model


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
