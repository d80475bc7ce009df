"""Loss on documents that training never sees, in nats a token and in bits a byte (comparable between tokenizers)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from lablib.data import PackedDataset
from lablib.data.loader import IGNORED
from lablib.specs import LabError, Mixture
from lablib.train.batches import Batch, collate
from lablib.train.step import Stepper

Place = tuple[str, int]
"""(Domain, window's number in it)."""


@dataclass(frozen=True)
class Heldout:
    """The first `count` windows of the held-out split, the same ones each time and under every layout.

    Of a domain with fewer than `least` of them more are read, as many as it has; these count for the domain alone.
    """

    data: PackedDataset
    count: int
    batch_size: int
    document_mask: bool
    token_bytes: torch.Tensor
    """Bytes of text each token id stands for, (vocab,); special tokens stand for none."""
    least: int = 0
    sides: Mapping[str, Mixture] = field(default_factory=dict)
    """Mixtures whose domains' losses are also told together, weighted as they are in it: ``loss_<name>``."""

    def __call__(self, stepper: Stepper) -> dict[str, float]:
        """`loss` (nats a target) and `bits_per_byte` (total nats / ln 2 / bytes of the targets), and the same of each domain
        as ``loss.<domain>`` and ``bits_per_byte.<domain>``. Every rank calls it."""
        stepper.model.eval()
        sums = torch.zeros(1 + len(self.data.domains), 3, dtype=torch.float64)
        with torch.no_grad():
            for indices in self._rounds(stepper):
                self._measure(stepper, indices, sums)
        stepper.model.train()
        rows = stepper.summed(sums).tolist()
        names = ("", *(f".{domain}" for domain in self.data.domains))
        found: dict[str, float] = {}
        for name, (nats, targets, text) in zip(names, rows, strict=True):
            if targets and text:
                found |= {f"loss{name}": nats / targets, f"bits_per_byte{name}": nats / math.log(2) / text}
        return found | {f"loss_{name}": together(found, mixture) for name, mixture in self.sides.items()}

    @cached_property
    def _places(self) -> tuple[Place, ...]:
        """What is read: first the windows that count overall, then those of small domains."""
        places = [self.data.place(index) for index in range(self.count)]
        counts = Counter(domain for domain, _ in places)
        more = (
            (name, n) for name, held in self.data.windows.items() for n in range(counts[name], min(self.least, held))
        )
        return (*places, *more)

    def _measure(self, stepper: Stepper, indices: Sequence[int], sums: torch.Tensor) -> None:
        """Add (nats, targets, bytes) of a batch to row 0 (all) and to each domain's row."""
        batch = self._batch(indices, stepper.world.device)
        nats, labels = stepper.sequence_losses(batch).double().cpu(), batch.labels.cpu()
        counted = labels != IGNORED
        lengths = torch.where(counted, self.token_bytes[labels.clamp(min=0)], 0)
        rows = torch.stack([nats, counted.sum(1).double(), lengths.sum(1).double()], dim=1)
        for index, row in zip(indices, rows, strict=True):
            if index < len(self._places):
                sums[1 + self.data.domains.index(self._places[index][0])] += row
            if index < self.count:
                sums[0] += row

    def _rounds(self, stepper: Stepper) -> list[range]:
        # FSDP gathers weights together, so each rank runs equally many batches; those past the end count for nothing.
        place, size = stepper.place, self.batch_size
        rounds = math.ceil(len(self._places) / (size * place.dp))
        starts = ((m * place.dp + place.dp_rank) * size for m in range(rounds))
        return [range(start, start + size) for start in starts]

    def _batch(self, indices: Sequence[int], device: torch.device) -> Batch:
        last = len(self._places) - 1
        return collate([self.data.window(*self._places[min(i, last)]) for i in indices], self.document_mask).on(device)


def together(losses: Mapping[str, float], mixture: Mixture) -> float:
    """Mean of ``loss.<domain>``, weighted by the mixture. Raises `LabError` for a domain without held-out text."""
    weights = {name: weight for name, weight in mixture.weights.items() if weight > 0}
    if missing := [name for name in weights if f"loss.{name}" not in losses]:
        raise LabError(f"domain {missing[0]!r} has no held-out text to measure forgetting by; prepare the data with a larger heldout share")  # fmt: skip
    return sum(weight * losses[f"loss.{name}"] for name, weight in weights.items()) / sum(weights.values())
