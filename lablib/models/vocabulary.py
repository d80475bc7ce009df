"""Embedding surgery: give a trained model another tokenizer, or one with more tokens, and keep what it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lablib.data.tokenizer import encode, load, require, spellings, tokenizer_hash
from lablib.specs import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MULTIPLE = 64
"""Rows are padded to a multiple of this, as matmul kernels like (NVIDIA's guide to matrix multiplication, tile sizes)."""


@dataclass(frozen=True)
class Surgery:
    """What became of the rows: how many tokens kept theirs, how many got a mean, and how many had nothing to go by."""

    kept: int
    """Tokens with the same spelling before; their rows are copied, so their logits stay."""
    spelled: int
    """New tokens; each row is the mean of the rows of the old tokens that spell it."""
    fresh: int
    """New special tokens, and the padding: the mean of all old rows."""
    rows: int
    """Of the embedding now, padding included."""


@torch.no_grad()
def change_vocabulary(model: PreTrainedModel, old: Path, new: Path, multiple: int = MULTIPLE) -> Surgery:
    """Make `model`, which learned from the tokenizer in `old`, read and write the ids of the one in `new`.

    Works in place on input embeddings and head, tied or not, and rebinds the model to `new`. A token is the same token
    where its bytes are (a special one where its name is), whatever its id. The new rows are a beginning: they need training,
    the head's above all. Raises `LabError` where `old` is not the model's tokenizer, or does not tell its tokens' bytes.
    """
    require(getattr(model.config, "tokenizer_hash", None), old, f"the {type(model).__name__}")
    sources = _sources(old, new)
    before = [weight.clone() for weight in _weights(model)]
    used = sorted({row for rows in sources.values() for row in rows})
    if used[-1] >= len(before[0]):
        raise LabError(
            f"{old} has id {used[-1]}, but the model has {len(before[0])} rows; give the model's own tokenizer"
        )
    model.resize_token_embeddings(max(sources) + 1, pad_to_multiple_of=multiple, mean_resizing=False)
    for now, then in zip(_weights(model), before, strict=True):
        now.copy_(then[used].float().mean(0).expand_as(now))
        for number, rows in sources.items():
            if rows:
                now[number] = then[rows[0]] if len(rows) == 1 else then[rows].float().mean(0)
    model.config.tokenizer_hash = tokenizer_hash(new)
    kept = sum(len(rows) == 1 for rows in sources.values())
    spelled = sum(len(rows) > 1 for rows in sources.values())
    total = len(_weights(model)[0])
    return Surgery(kept, spelled, total - kept - spelled, total)


def _weights(model: PreTrainedModel) -> list[torch.Tensor]:
    """(rows, hidden) of the input embedding, and of the head where it has a weight of its own."""
    embedding: torch.Tensor = model.get_input_embeddings().weight.data
    layer = model.get_output_embeddings()
    head: torch.Tensor = embedding if layer is None else layer.weight.data
    return [embedding] if head.data_ptr() == embedding.data_ptr() else [embedding, head]


def _sources(old: Path, new: Path) -> dict[int, list[int]]:
    """New id → old ids whose rows its own row is the mean of; none for a special token without a namesake."""
    before, after = load(old), load(new)
    by_bytes = {spelled: number for number, spelled in sorted(spellings(old).items(), reverse=True)}
    ordinary = spellings(new)
    found: dict[int, list[int]] = {}
    for token, number in after.get_vocab().items():
        spelled = ordinary.get(number)
        if spelled is None:
            same = before.token_to_id(token)
            found[number] = [] if same is None else [same]
        else:
            found[number] = [by_bytes[spelled]] if spelled in by_bytes else []
    missing = [number for number, spelled in ordinary.items() if not found[number] and spelled]
    texts = {number: _text(ordinary[number]) for number in missing}
    whole = [number for number in missing if texts[number] is not None]
    for number, ids in zip(whole, encode(before, [texts[number] or "" for number in whole]), strict=True):
        found[number] = ids.tolist()
    for number in set(missing) - set(whole):
        found[number] = [by_bytes[bytes([byte])] for byte in ordinary[number]]
    return found


def _text(spelled: bytes) -> str | None:
    """Bytes as text; None where they are part of a character."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return None
