"""Loss on documents that training never sees, in nats a token and in bits a byte (comparable between tokenizers)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lablib.data.loader import IGNORED
from lablib.train.batches import Batch, Windows, collate
from lablib.train.step import Stepper


@dataclass(frozen=True)
class Heldout:
    """The first `count` windows of the held-out split, the same ones each time and under every layout."""

    data: Windows
    count: int
    batch_size: int
    document_mask: bool
    token_bytes: torch.Tensor
    """Bytes of text each token id stands for, (vocab,); special tokens stand for none."""

    def __call__(self, stepper: Stepper) -> dict[str, float]:
        """`loss` (nats a target) and `bits_per_byte` (total nats / ln 2 / bytes of the targets). Every rank calls it."""
        stepper.model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._batches(stepper):
                sums += self._measure(stepper, batch)
        stepper.model.train()
        nats, targets, text = (stepper.total(value) for value in sums)
        return {"loss": nats / targets, "bits_per_byte": nats / math.log(2) / text}

    def _measure(self, stepper: Stepper, batch: Batch) -> torch.Tensor:
        kept = batch.labels[batch.labels != IGNORED].cpu()
        nats = float(stepper.loss_sum(batch))
        return torch.tensor([nats, len(kept), self.token_bytes[kept].sum()], dtype=torch.float64)

    def _batches(self, stepper: Stepper) -> list[Batch]:
        # FSDP gathers weights together, so each rank runs equally many batches; those past the end count for nothing.
        place, size = stepper.place, self.batch_size
        rounds = math.ceil(self.count / (size * place.dp))
        starts = ((m * place.dp + place.dp_rank) * size for m in range(rounds))
        return [self._batch(range(start, start + size), stepper.world.device) for start in starts]

    def _batch(self, indices: range, device: torch.device) -> Batch:
        batch = collate([self.data[min(i, self.count - 1)] for i in indices], self.document_mask, device)
        batch.labels[[i >= self.count for i in indices]] = IGNORED
        return batch
