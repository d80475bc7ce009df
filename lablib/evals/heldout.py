"""Held-out text: how many bits a model needs for a byte of it. Post-training should not cost what pretraining bought."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lablib.data import shards
from lablib.data.tokenizer import require
from lablib.models.folder import load_tokenizer
from lablib.specs import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "held-out text"
"""What held-out text is called among the tasks."""
PIECE = 256
"""Tokens kept of each document: many short pieces tell more than few long ones, as documents are what is resampled."""


@dataclass(frozen=True)
class Piece:
    """The beginning of one held-out document, as text, so that models with other tokenizers read the same bytes."""

    domain: str
    text: str


def read_pieces(data: Path, tokenizer: Path, budget: int) -> list[Piece]:
    """Document heads of the held-out split, taken from the domains in turn until `budget` tokens.

    `data` and `tokenizer` are a Prepare run's artefacts. Raises `LabError` where the split is empty, or where the
    tokenizer is not the data's.
    """
    words, card = load_tokenizer(tokenizer), shards.manifest(data)
    require(card["tokenizer"].get("hash"), tokenizer, f"data {data}")
    domains = sorted({row["domain"] for row in card["shards"]})
    streams = {name: _heads(shards.read(data, name, "heldout", card["tokenizer"]["vocab"])) for name in domains}
    pieces: list[Piece] = []
    while streams and budget > 0:
        for domain in list(streams):
            ids = next(streams[domain], None)
            if ids is None:
                del streams[domain]
                continue
            budget -= len(ids)
            pieces.append(
                Piece(domain, words.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            )
    kept = [piece for piece in pieces if len(piece.text) > 1]
    if not kept:
        raise LabError(f"{data} has no held-out documents; prepare it with a larger heldout share")
    return kept


def _heads(shard: shards.ShardData) -> Iterator[list[int]]:
    """The first `PIECE` token ids of each document, without the token that ends it."""
    for start, length in zip(shard.starts.tolist(), shard.lengths.tolist(), strict=True):
        yield shard.tokens[start : start + min(length - 1, PIECE)].tolist()


@torch.no_grad()
def bits(
    model: PreTrainedModel,
    tokenizer: Any,
    pieces: list[Piece],
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[list[float], list[int]]:
    """For each piece (total bits, bytes they describe). The first token has no context and is left out of both; `report`
    gets the number done."""
    model.eval()
    encoded = [tokenizer(piece.text, add_special_tokens=False)["input_ids"] for piece in pieces]
    totals = [0.0] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for i, nats in zip(chosen, _nats(model, [encoded[i] for i in chosen], tokenizer.pad_token_id), strict=True):
            totals[i] = nats / math.log(2)
        report(start + len(chosen))
    first = [len(tokenizer.decode(ids[:1]).encode()) for ids in encoded]
    return totals, [len(piece.text.encode()) - skipped for piece, skipped in zip(pieces, first, strict=True)]


def _nats(model: PreTrainedModel, rows: list[list[int]], pad: int) -> list[float]:
    """Summed negative log-likelihood of each row's tokens after the first."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return [float(value) for value in (losses * mask[:, 1:]).sum(1)]
