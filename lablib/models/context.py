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


def attend_over(model: PreTrainedModel, group: ProcessGroup) -> None:
    """Make every attention of `model` see the keys and values of the whole sequence, whose slices `group` holds in order.

    The model must be given a mask from `context_mask`. Raises `LabError` where some layers attend through a window.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise LabError(f"parallelism.cp={group.size()}: only full attention can be split over the sequence, {model.config.model_type} also has {', '.join(sorted(kinds - {'full_attention'}))}; set cp=1")  # fmt: skip

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


def context_mask(positions: torch.Tensor, rank: int, ranks: int) -> torch.Tensor:
    """Which keys of the whole sequence each query of slice `rank` of `ranks` sees, bool (sequences, 1, slice, seq_len).

    `positions` (sequences, seq_len) are the whole sequence's, from 0 in each document: a query sees its own document
    up to itself.
    """
    documents = (positions == 0).cumsum(1)
    order = torch.arange(positions.shape[1], device=positions.device)
    own = own_slice(positions.shape[1], rank, ranks)
    same = documents[:, own, None] == documents[:, None, :]
    return (same & (order[own, None] >= order[None, :]))[:, None]


def own_slice(length: int, rank: int, ranks: int) -> slice:
    """The part of a sequence of `length` tokens that one rank holds; `ranks` divides it."""
    size = length // ranks
    return slice(rank * size, (rank + 1) * size)
