"""The playbook's last measures on a model: attention of one layer in fp32, and the search for weights of a wrong scale."""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from statistics import median
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from lablib.models.context import GATHERED
from lablib.models.documents import DOCUMENTS

UNUSUAL = 4.0
"""Times the other layers' median that a weight's RMS must be, above or below, to be named: layers of one kind begin alike."""
_PREFIX = "fp32-"
_ABLE = ("sdpa", DOCUMENTS, GATHERED)


@torch.no_grad()
def rms(weight: torch.Tensor) -> float:
    """Root mean square of a whole weight, however it is sharded; every rank calls it."""
    norm = torch.linalg.vector_norm(weight.detach().float())
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm) / math.sqrt(weight.numel())


def unusual_weights(model: torch.nn.Module) -> dict[str, float]:
    """Weight matrices whose RMS is far from that of the same matrix in the other layers: name → times their median.

    Of two layers that differ both are named.
    """
    kinds: dict[str, dict[str, float]] = defaultdict(dict)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and re.search(r"\.\d+\.", name):
            kinds[re.sub(r"\.\d+\.", ".N.", name)][name] = rms(weight)
    found: dict[str, float] = {}
    for sizes in kinds.values():
        for name, size in sizes.items():
            others = median([other for peer, other in sizes.items() if peer != name] or [size])
            ratio = size / others if others else 1.0
            if not 1 / UNUSUAL < ratio < UNUSUAL:
                found[name] = ratio
    return found


def attention_scales(model: torch.nn.Module) -> dict[int, float]:
    """Layer → RMS of its query projection times that of its key projection: how large its attention logits can be; of the
    layers that `attend_in_fp32` has a way for."""
    able = {number: layer for number, layer in _attention(model).items() if _used(layer).removeprefix(_PREFIX) in _ABLE}
    return {number: rms(layer.q_proj.weight) * rms(layer.k_proj.weight) for number, layer in able.items()}


def attend_in_fp32(model: torch.nn.Module, number: int) -> bool:
    """Let one layer's attention compute scores, softmax and values in fp32; False where it does already or cannot.

    Eager attention has an fp32 softmax already, flash kernels take 16-bit inputs only, and FlexAttention's mask is made for its
    own name: all are left alone. (Attention inside documents then takes one document at a time.) The saved model's configuration
    does not change.
    """
    layer = _attention(model).get(number)
    if layer is None or (used := _used(layer)) not in _ABLE:
        return False
    inner = ALL_ATTENTION_FUNCTIONS[used]
    AttentionInterface.register(_PREFIX + used, _in_fp32(inner))
    layer.config = copy.copy(layer.config)
    layer.config._attn_implementation = _PREFIX + used
    return True


def _attention(model: torch.nn.Module) -> dict[int, Any]:
    needed = ("q_proj", "k_proj", "config", "layer_idx")
    found: list[Any] = [module for module in model.modules() if all(hasattr(module, name) for name in needed)]
    return {layer.layer_idx: layer for layer in found}


def _used(layer: Any) -> str:
    return str(layer.config._attn_implementation)


def _in_fp32(attention: Any) -> Any:
    def forward(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> Any:
        additive = mask.float() if isinstance(mask, torch.Tensor) and mask.is_floating_point() else mask
        with torch.autocast(query.device.type, enabled=False):
            out, weights = attention(module, query.float(), key.float(), value.float(), additive, **options)
        return out.to(value.dtype), weights

    return forward
