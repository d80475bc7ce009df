"""torch.compile, one decoder layer at a time: layers that are alike share one compilation."""

from __future__ import annotations

from typing import Any

import torch
import torch._functorch.config as functorch

from lablib.models.decoder import decoder_layers

BUDGET = 0.5
"""Share of the bytes that a compiled layer would keep for its backward pass which recompute="budget" keeps (torchtitan's default)."""


def compile_layers(model: torch.nn.Module, budget: float = 1.0) -> None:
    """Compile the forward pass of each decoder layer that `model` holds, in place; what hooks around it do (FSDP2's) stays eager.

    The compiler keeps what costs most to compute again until `budget` of the bytes are used, and repeats the rest in the
    backward pass; the setting is the process' own.
    """
    functorch.activation_memory_budget = budget
    for layer in decoder_layers(model).values():
        whole: Any = layer
        whole.forward = torch.compile(layer.forward)
