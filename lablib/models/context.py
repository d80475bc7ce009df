"""Context parallelism: each rank has a slice of every sequence, and attention gathers keys and values from all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed._functional_collectives import all_gather_single_autograd
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lablib.specs import LabError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from transformers import PreTrainedModel

GATHERED = "gathered_sdpa"
"""Name of this attention among transformers' implementations."""
FULL, WINDOWED = "full_attention", "sliding_attention"
"""transformers' kinds of layers that attend to everything before, and to a window."""
Masks = torch.Tensor | dict[str, torch.Tensor]
"""One mask for all layers, or one for each kind that the model has; added to the scores, for torch turns any other into such a one
anew in every layer and keeps them all for the backward pass."""


def attend_over(model: PreTrainedModel, group: ProcessGroup) -> None:
    """Make every attention of `model` see the keys and values of the whole sequence, whose slices `group` holds in order.

    The model must be given `context_masks`. Raises `LabError` where some layers are not attention to all or to a window, or
    attention is not torch's.
    """
    if not model._supports_sdpa:
        raise LabError(f"parallelism.cp={group.size()}: {model.config.model_type} changes its scores, which torch's attention cannot; set cp=1")  # fmt: skip
    others = set(getattr(model.config, "layer_types", None) or ()) - {FULL, WINDOWED}
    if others:
        raise LabError(f"parallelism.cp={group.size()}: only attention to all or to a window can be split over the sequence, {model.config.model_type} also has {', '.join(sorted(others))}; set cp=1")  # fmt: skip

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        key, value = (_gathered(tensor, group) for tensor in (key, value))
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return found

    AttentionInterface.register(GATHERED, attention)
    model.set_attn_implementation(GATHERED)


def _gathered(tensor: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    # (sequences, heads, slice, head_dim) → (…, seq_len, head_dim); its gradient is summed over the group and sliced.
    return all_gather_single_autograd(tensor.contiguous(), gather_dim=2, group=group)


def context_masks(
    config: Any, positions: torch.Tensor, rank: int, ranks: int, dtype: torch.dtype = torch.float32
) -> Masks:
    """`context_mask` as a model of a transformers `config` takes it; `dtype` is that of its queries."""
    window, kinds = (getattr(config, name, None) for name in ("sliding_window", "layer_types"))

    def made(windowed: bool) -> torch.Tensor:
        seen = context_mask(positions, rank, ranks, window if windowed else None)
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))

    if kinds is None or WINDOWED not in kinds:
        return made(windowed=not kinds)
    return {kind: made(kind == WINDOWED) for kind in set(kinds)}


def context_mask(positions: torch.Tensor, rank: int, ranks: int, window: int | None = None) -> torch.Tensor:
    """Which keys of the whole sequence each query of slice `rank` of `ranks` sees, bool (sequences, 1, slice, seq_len).

    `positions` (sequences, seq_len) are the whole sequence's, from 0 in each document: a query sees its own document
    up to itself, of that the last `window` tokens.
    """
    documents = (positions == 0).cumsum(1)
    order = torch.arange(positions.shape[1], device=positions.device)
    own = own_slice(positions.shape[1], rank, ranks)
    same = documents[:, own, None] == documents[:, None, :]
    distance = order[own, None] - order[None, :]
    seen = (distance >= 0) & (distance < window) if window else distance >= 0
    return (same & seen)[:, None]


def computed_in(device: torch.device, otherwise: torch.dtype) -> torch.dtype:
    """What attention computes in on `device`: autocast's type where that is on, whatever its queries have (rotary positions and
    norms leave them in fp32)."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else otherwise


def own_slice(length: int, rank: int, ranks: int) -> slice:
    """The part of a sequence of `length` tokens that one rank holds; `ranks` divides it."""
    size = length // ranks
    return slice(rank * size, (rank + 1) * size)
