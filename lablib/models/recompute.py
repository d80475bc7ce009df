"""Activation checkpointing: trade compute for memory, one decoder layer at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.attention.varlen  # registers its operator
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lablib.specs.recipe import Recompute

_ATEN = torch.ops.aten
SAVED = frozenset(
    {
        _ATEN.mm.default,
        _ATEN.addmm.default,
        _ATEN.bmm.default,
        _ATEN._scaled_mm.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
        _ATEN._scaled_dot_product_flash_attention.default,
        _ATEN._scaled_dot_product_efficient_attention.default,
        _ATEN._scaled_dot_product_cudnn_attention.default,
        torch.ops.torch_attn._varlen_attn.default,
    }
)
"""What "selective" keeps: the outputs of attention and of every matrix product, which cost most to compute again. Norms,
rotary embeddings and activation functions are recomputed."""


def apply_recompute(model: PreTrainedModel, kind: Recompute) -> None:
    """Turn checkpointing on in place: "full" keeps only each layer's input, "selective" also the results in `SAVED`.

    Gradients stay the same to rounding; only memory and time change (arXiv 1604.06174). "budget" is the compiler's to keep
    (`lablib.models.compiled`).
    """
    if kind in ("none", "budget"):
        return
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    model.activation_checkpointing_enable(settings)


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in SAVED else CheckpointPolicy.PREFER_RECOMPUTE
