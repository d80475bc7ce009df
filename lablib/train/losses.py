"""Cross entropy of a model's next tokens, with or without logits for all of them at once, and the z-loss.

Logits of a whole micro-batch are the largest tensors of a training step: 8,192 tokens × 128,256 words are 4 GiB in fp32, and
a backward pass holds three of them. "chunked" computes head and loss for `CHUNK_TOKENS` tokens at a time and again in the
backward pass, so that never more than a chunk's exist.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lablib.data.loader import IGNORED
from lablib.models.context import Masks
from lablib.plan.memory import CHUNK_TOKENS
from lablib.specs import LabError


class Tokens(Protocol):
    """What a model reads and is to predict, (sequences, seq_len) each: a batch, or a rank's slice of one."""

    @property
    def inputs(self) -> Tensor:
        """Token ids."""

    @property
    def labels(self) -> Tensor:
        """The next token's id, or `IGNORED`."""

    @property
    def positions(self) -> Tensor:
        """Places in each document."""


class TokenLosses:
    """A model's loss at every token of a batch."""

    def __init__(self, model: Any, chunked: bool = False, z_loss: float = 0.0, chunk: int = CHUNK_TOKENS) -> None:
        """`chunk` is in tokens. Raises `LabError` for a chunked loss of a model that changes its head's logits."""
        self.model, self.chunked, self.z_loss, self.chunk = model, chunked, z_loss, chunk
        self._labels = torch.empty(0, 0, dtype=torch.long)
        if chunked and getattr(model.config, "final_logit_softcapping", None):
            raise LabError(
                "cross_entropy='chunked': this model caps its logits after the head; set cross_entropy='full'"
            )

    def __call__(self, batch: Tokens, mask: Masks | None = None) -> Tensor:
        """Nats of each token, fp32, (sequences·seq_len,); 0 where none is predicted. The z-loss acts on gradients alone.

        No cache, and no mask but that of context parallelism: with either, transformers ignores the documents that
        `positions` mark.
        """
        return self.of(
            batch.labels,
            input_ids=batch.inputs,
            position_ids=batch.positions,
            attention_mask=mask,
            use_cache=False,
        )

    def of(self, labels: Tensor, **inputs: Any) -> Tensor:
        """The same of labels (sequences, seq_len) and of whatever the model is called with: hidden states, in a pipeline."""
        self._labels = labels
        if not self.chunked:
            return token_losses(self.model(**inputs).logits.flatten(0, 1), labels.flatten(), self.z_loss)
        head = self.model.get_output_embeddings()
        # The forward function that is replaced is inside FSDP's hooks and outside tensor parallelism's, so the head is
        # gathered once a micro-batch and each chunk's logits are whole.
        self._logits, head.forward = head.forward, self._losses
        try:
            losses: Tensor = self.model(**inputs).logits
        finally:
            head.forward = self._logits
        return losses

    def _losses(self, hidden: Tensor) -> Tensor:
        """In the place of the head's forward: losses instead of logits, of hidden states (sequences, seq_len, hidden).

        Under sequence parallelism they are one of several slices of the sequences, and the head gathers each chunk from all
        of them, slice by slice.
        """
        sequences, length, _ = hidden.shape
        labels = by_slice(self._labels, self._labels.shape[1] // length)
        size = max(1, self.chunk // len(labels))
        parts = zip(hidden.flatten(0, 1)[None].split(size, 1), labels.split(size, 1), strict=True)
        losses = [checkpoint(self._chunk, *part, self._logits, use_reentrant=False) for part in parts]
        return torch.cat(losses, 1).unflatten(1, (sequences, length)).transpose(0, 1).flatten()

    def _chunk(self, hidden: Tensor, labels: Tensor, logits: Any) -> Tensor:
        """Losses (slices, tokens) of this rank's tokens (1, tokens, hidden) and of their likes on other slices."""
        return token_losses(logits(hidden).flatten(0, 1), labels.flatten(), self.z_loss).view_as(labels)


def by_slice(labels: Tensor, slices: int) -> Tensor:
    """Labels (sequences, seq_len) as (slices, sequences·seq_len / slices), each slice of all sequences by itself."""
    return labels.unflatten(1, (slices, -1)).transpose(0, 1).flatten(1)


def token_losses(logits: Tensor, labels: Tensor, z_loss: float = 0.0) -> Tensor:
    """Cross entropy in nats, in fp32, of logits (tokens, vocab) and labels (tokens,); 0 where the label is `IGNORED`.

    With `z_loss` the gradient is that of cross entropy + z_loss·log²Z, Z the softmax's denominator, which keeps logits from
    drifting (PaLM, arXiv 2204.02311 §5: 1e-4). The value stays the cross entropy, so that curves compare.
    """
    nats = cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")
    if not z_loss:
        return nats
    drift = z_loss * torch.logsumexp(logits.float(), -1).square() * (labels != IGNORED)
    return nats + (drift - drift.detach())
