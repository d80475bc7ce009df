"""Attention inside packed documents, without a mask: each document's queries meet its own keys alone.

A mask over whole sequences costs work and memory with the square of their length, this with the square of the documents'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lablib.models.context import computed_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DOCUMENTS = "documents"
"""Name of this attention among transformers' implementations."""


def attend_within(model: PreTrainedModel) -> bool:
    """Make every attention of `model` stay inside the documents whose positions it is given; False where it cannot.

    Torch's kernels do not cap their scores as Gemma 2 does, RWKV has no attention, and GPT-2 does not tell its own the positions.
    """
    if not model._supports_sdpa or model.config.model_type == "gpt2":
        return False
    AttentionInterface.register(DOCUMENTS, attention)
    AttentionMaskInterface.register(DOCUMENTS, _no_mask)
    model.set_attn_implementation(DOCUMENTS)
    return True


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: query (sequences, heads, seq_len, head_dim), keys and values with their own number of heads,
    `position_ids` (sequences, seq_len) from 0 in each document. Gives (sequences, seq_len, heads, head_dim). `cu_seq_lens_q` is
    `boundaries` of them, where it is known.

    A mask that is given after all (a slice of the sequence under sequence parallelism) is obeyed instead.
    """
    if attention_mask is not None or position_ids is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    if cu_seq_lens_q is None:
        cu_seq_lens_q = boundaries(
            position_ids.expand(len(query), -1)
        )  # transformers' own are one row for all sequences
    attend = _packed if _packable(query, value) else _one_by_one
    return attend(query, key, value, cu_seq_lens_q, scaling, sliding_window), None


def boundaries(positions: torch.Tensor) -> torch.Tensor:
    """Where documents begin when the sequences of `positions` (sequences, seq_len) lie one after the other, and their end:
    int32 (documents + 1,). Every sequence begins one, also where it continues a document of an earlier window."""
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[:, 1:] = positions.diff(dim=1) != 1
    found = begins.flatten().nonzero().flatten()
    return torch.cat([found, found.new_tensor([positions.numel()])]).int()


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _band(order: torch.Tensor, window: int) -> torch.Tensor:
    back = order[:, None] - order[None, :]
    return (back >= 0) & (back < window)


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Document by document, of all sequences in a row."""
    sequences, grouped, made = len(query), query.shape[1] != key.shape[1], []
    rows = [tensor.transpose(0, 1).flatten(1, 2) for tensor in (query, key, value)]  # (heads, tokens, head_dim)
    for one in zip(*(row.split(ends.diff().tolist(), dim=1) for row in rows), strict=True):
        q, k, v = (tensor.unsqueeze(0) for tensor in one)
        length = q.shape[2]
        cut = _band(torch.arange(length, device=q.device), window) if window and window < length else None
        made.append(
            F.scaled_dot_product_attention(q, k, v, cut, is_causal=cut is None, scale=scale, enable_gqa=grouped)
        )
    return torch.cat(made, dim=2)[0].transpose(0, 1).unflatten(0, (sequences, -1)).contiguous()


def _packable(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's FlashAttention takes them: 16 bits, heads of one width, a multiple of 8 up to 256, Ampere or newer."""
    dtype, width = computed_in(query.device, query.dtype), query.shape[-1]
    fits = dtype in (torch.bfloat16, torch.float16) and value.shape[-1] == width <= 256 and width % 8 == 0
    return query.is_cuda and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """All documents of all sequences in one kernel (FlashAttention's, in torch)."""
    sequences, _, length, _ = query.shape
    dtype = computed_in(query.device, query.dtype)
    q, k, v = (tensor.to(dtype).transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    back = (window - 1 if window else -1, 0)
    out = varlen_attn(q, k, v, ends, ends, length, length, scale=scale, window_size=back, enable_gqa=q.shape[1] != k.shape[1])  # fmt: skip
    return cast(torch.Tensor, out).unflatten(0, (sequences, length))
