"""Which implementation of attention a model uses, and what a flash kernel is told of documents.

transformers derives the documents from positions too, but for one sequence at a time only
(`transformers.modeling_flash_attention_utils._is_packed_sequence`): in a micro-batch of several, attention would cross from
document to document without a word. And it reads the device back in every layer. So flash kernels are given the boundaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from lablib.models.documents import DOCUMENTS, attend_within, boundaries
from lablib.specs import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lablib.specs.recipe import Attention

_PACKAGES = {
    "flash_attention_2": (is_flash_attn_2_available, "flash-attn", (8, 0)),
    "flash_attention_3": (is_flash_attn_3_available, "flash-attn-3", (9, 0)),
}
"""Implementation → whether transformers can use its package, the package, and the least compute capability (Ampere, Hopper;
Dao-AILab/flash-attention, README)."""


def attend(model: PreTrainedModel, name: Attention, inside: bool = False) -> None:
    """Let `model` use the attention `name`; "auto" is ours `inside` documents where that is wanted and can be had, else
    transformers' sdpa.

    Raises `LabError` where the model has none such.
    """
    if name == "auto":
        if inside:
            attend_within(model)
        return
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        raise LabError(f"attention={name!r}: {str(error).splitlines()[0]}; set attention='auto'") from None
    if model.config._attn_implementation != name:
        raise LabError(f"attention={name!r}: transformers has none such for {model.config.model_type}; set attention='auto'")  # fmt: skip


def check_attention(name: Attention, device: torch.device) -> None:
    """Raises `LabError` where `device` has no kernel of the attention `name`, or its package is not there."""
    if name in ("auto", "sdpa"):
        return
    if device.type != "cuda":
        why = "has no backward pass" if name == "flex_attention" else "has no kernel"
        raise LabError(f"attention={name!r} {why} on a {device.type}; set attention='auto', or run on a GPU")
    if name in _PACKAGES:
        able, package, least = _PACKAGES[name]
        if torch.cuda.get_device_capability(device) < least:
            raise LabError(f"attention={name!r} needs compute capability {least[0]}.{least[1]}, {torch.cuda.get_device_name(device)} has less; set attention='auto'")  # fmt: skip
        if not able():
            raise LabError(f"attention={name!r} needs the package {package}, built for this torch; install it where the run works, or set attention='auto'")  # fmt: skip


def varlen(model: Any, positions: Tensor, documents: Tensor | None) -> dict[str, Any]:
    """What a model whose attention is told of documents (a flash kernel, ours) is called with besides: boundaries of the documents, `documents` or else
    those of `positions`, and a bound of their length. Nothing for other models."""
    used = str(model.config._attn_implementation)
    if used != DOCUMENTS and not used.startswith("flash_attention"):
        return {}
    ends = boundaries(positions) if documents is None else documents
    longest = positions.shape[1]  # a bound is enough, and known without asking the device
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def attention_used(model: Any, device: torch.device) -> dict[str, Any]:
    """What computes attention: transformers' implementation and, where that is torch's, the kernels that torch may choose
    from (on a CPU it has one of its own)."""
    used: dict[str, Any] = {"implementation": model.config._attn_implementation}
    if device.type != "cuda" or "sdpa" not in used["implementation"]:
        return used
    cuda = torch.backends.cuda
    able = {"flash": cuda.flash_sdp_enabled(), "efficient": cuda.mem_efficient_sdp_enabled(), "cudnn": cuda.cudnn_sdp_enabled()}  # fmt: skip
    return {**used, "kernels": [name for name, on in able.items() if on]}
