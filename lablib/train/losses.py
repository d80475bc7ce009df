"""Cross entropy of a model's next tokens, with or without logits for all of them at once, and the z-loss.

Logits of a whole micro-batch are the largest tensors of a training step: 8,192 tokens × 128,256 words are 4 GiB in fp32, and
a backward pass holds three of them. "chunked" computes head and loss for `CHUNK_TOKENS` tokens at a time and again in the
backward pass, so that never more than a chunk's exist. "fused" takes the gradients of head and hidden states in the forward
pass, while a chunk's logits are there (Liger Kernel's fused linear cross entropy, arXiv 2410.10989 §3.2): as little of the
logits, and the head is not computed again. torch 2.13 has an operator for this (`torch.nn.functional.linear_cross_entropy`);
it is not used because the loss comes in the precision of the hidden states, 8 bits under bf16, and it has no z-loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lablib.data.loader import IGNORED
from lablib.models.attention import varlen
from lablib.models.context import Masks
from lablib.plan.memory import CHUNK_TOKENS
from lablib.specs import LabError
from lablib.specs.recipe import CrossEntropy


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

    @property
    def documents(self) -> Tensor | None:
        """As in `lablib.train.batches.Batch`."""


class TokenLosses:
    """A model's loss at every token of a batch."""

    def __init__(self, model: Any, kind: CrossEntropy = "full", z_loss: float = 0.0, chunk: int = CHUNK_TOKENS) -> None:
        """`chunk` is in tokens. Raises `LabError` for a chunked or fused loss of a model that changes its head's logits."""
        self.model, self.kind, self.z_loss, self.chunk = model, kind, z_loss, chunk
        self._labels = torch.empty(0, 0, dtype=torch.long)
        if kind != "full" and getattr(model.config, "final_logit_softcapping", None):
            raise LabError(
                f"cross_entropy={kind!r}: this model caps its logits after the head; set cross_entropy='full'"
            )

    def __call__(self, batch: Tokens, mask: Masks | None = None) -> Tensor:
        """Nats of each token, fp32, (sequences·seq_len,); 0 where none is predicted. The z-loss acts on gradients alone.

        No cache, and no mask but that of context parallelism: with either, transformers ignores the documents that
        `positions` mark. A "fused" loss is a chunked one here: one gradient for all tokens is not enough.
        """
        return self.of(batch.labels, **self._inputs(batch, mask))

    def of(self, labels: Tensor, **inputs: Any) -> Tensor:
        """The same of labels (sequences, seq_len) and of whatever the model is called with: hidden states, in a pipeline."""
        if self.kind == "full":
            return token_losses(self.model(**inputs).logits.flatten(0, 1), labels.flatten(), self.z_loss)
        return self._in_place_of_logits(self._losses, labels, inputs)

    def sum(self, batch: Tokens, mask: Masks | None = None) -> Tensor:
        """The sum of them, (); its gradient may be taken once."""
        if self.kind != "fused":
            return self(batch, mask).sum()
        return self._in_place_of_logits(self._sum, batch.labels, self._inputs(batch, mask))

    def _inputs(self, batch: Tokens, mask: Masks | None) -> dict[str, Any]:
        inputs = {
            "input_ids": batch.inputs,
            "position_ids": batch.positions,
            "attention_mask": mask,
            "use_cache": False,
        }
        return inputs | varlen(self.model, batch.positions, batch.documents)

    def _in_place_of_logits(self, losses: Callable[[Tensor], Tensor], labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        self._labels = labels
        head = self.model.get_output_embeddings()
        # The forward function that is replaced is inside FSDP's hooks and outside tensor parallelism's, so the head is
        # gathered once a micro-batch and each chunk's logits are whole.
        self._logits, head.forward = head.forward, losses
        try:
            found: Tensor = self.model(**inputs).logits
        finally:
            head.forward = self._logits
        return found

    def _losses(self, hidden: Tensor) -> Tensor:
        """In the place of the head's forward: losses instead of logits, of hidden states (sequences, seq_len, hidden).

        Under sequence parallelism they are one of several slices of the sequences, and the head gathers each chunk from all
        of them, slice by slice.
        """
        parts = self._parts(hidden.flatten(0, 1))
        losses = [checkpoint(self._chunk, *part, self._logits, use_reentrant=False) for part in parts]
        return torch.cat(losses, 1).unflatten(1, hidden.shape[:2]).transpose(0, 1).flatten()

    @torch.compiler.disable
    def _sum(self, hidden: Tensor) -> Tensor:
        """The same for the sum of the losses."""
        weights = [weight for weight in self.model.get_output_embeddings().parameters() if weight.requires_grad]
        found: Tensor = _Fused.apply(hidden.flatten(0, 1), self, *weights)
        return found

    def _parts(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Chunks of this rank's hidden states (tokens, hidden), each as (1, …), and their labels on all slices (slices, …)."""
        labels = by_slice(self._labels, self._labels.numel() // len(hidden))
        size = max(1, self.chunk // len(labels))
        return list(zip(hidden[None].split(size, 1), labels.split(size, 1), strict=True))

    def _chunk(self, hidden: Tensor, labels: Tensor, logits: Any) -> Tensor:
        """Losses (slices, tokens) of this rank's tokens (1, tokens, hidden) and of their likes on other slices."""
        return token_losses(logits(hidden).flatten(0, 1), labels.flatten(), self.z_loss).view_as(labels)


def by_slice(labels: Tensor, slices: int) -> Tensor:
    """Labels (sequences, seq_len) as (slices, sequences·seq_len / slices), each slice of all sequences by itself."""
    return labels.unflatten(1, (slices, -1)).transpose(0, 1).flatten(1)


class _Fused(torch.autograd.Function):
    """Sum of a head's losses, whose gradients are there before the logits go."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, losses: TokenLosses, *weights: Tensor) -> Tensor:
        """Of hidden states (tokens, hidden); `weights` are what the head learns."""
        total, taken = hidden.new_zeros((), dtype=torch.float32), [torch.zeros_like(weight) for weight in weights]
        inside = torch.empty_like(hidden)
        with torch.enable_grad():
            for (part, labels), into in zip(losses._parts(hidden), inside[None].split(losses.chunk, 1), strict=True):
                own = part.detach().requires_grad_()
                nats = losses._chunk(own, labels, losses._logits).sum()
                first, *others = torch.autograd.grad(nats, (own, *weights))
                total += nats.detach()
                into.copy_(first)
                for sum_, other in zip(taken, others, strict=True):
                    sum_ += other
        ctx.taken = inside, *taken
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """As many gradients as `forward` has inputs."""
        inside, *taken = (gradient.mul_(scale) for gradient in ctx.taken)
        ctx.taken = None
        return inside, None, *taken


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
