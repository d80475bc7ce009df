"""Which sequences a rank trains on at a step: a pure function of one integer, whatever the layout."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from lablib.data.loader import IGNORED
from lablib.models.documents import boundaries
from lablib.models.layout import Place


class Windows(Protocol):
    """What the loop needs of a data set (`lablib.data.PackedDataset` is one)."""

    def __getitem__(self, index: int) -> Any:
        """A window with int64 `tokens` and `positions` (seq_len + 1,) and `labels` (seq_len,)."""

    def read(self, count: int) -> dict[str, int]:
        """Domain → tokens of it among the first `count` windows."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch; each tensor is int64 (sequences, seq_len), but for `documents`."""

    inputs: torch.Tensor
    labels: torch.Tensor
    """The next token, `IGNORED` where that is padding or the first token of another document."""
    positions: torch.Tensor
    """From 0 in each document where the document mask is on, else from 0 in each sequence."""
    documents: torch.Tensor | None = None
    """`lablib.models.documents.boundaries` of the positions, made on the host so that no kernel waits for them."""

    @property
    def targets(self) -> torch.Tensor:
        """Labels that count, int64 (), on their device."""
        return (self.labels != IGNORED).sum()

    def on(self, device: torch.device) -> Batch:
        """The same there."""
        documents = None if self.documents is None else sent(self.documents, device)
        return Batch(sent(self.inputs, device), sent(self.labels, device), sent(self.positions, device), documents)


def collate(windows: Sequence[Any], document_mask: bool) -> Batch:
    """Stack windows into a `Batch` on the host. Positions that restart are what transformers makes its block mask from."""
    tokens, positions, labels = (
        np.stack([getattr(window, name) for window in windows]) for name in ("tokens", "positions", "labels")
    )
    if not document_mask:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    arrays = tokens[:, :-1], labels, positions[:, :-1]
    inputs, targets, places = (torch.from_numpy(np.ascontiguousarray(one, dtype=np.int64)) for one in arrays)
    return Batch(inputs, targets, places, boundaries(places))


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On `device`, on a GPU from pinned memory so that the host does not wait for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def micro_batches(first: int, count: int, size: int, place: Place) -> list[list[int]]:
    """Global sequence indices of one rank's micro-batches, for the step that takes [first, first + count).

    `size` is sequences in a micro-batch. Micro-batch m of rank r is the slice [(m·dp + r)·size, +size): the slices of
    all ranks tile the step exactly, and tensor-parallel neighbours get the same one.
    """
    rounds = count // (size * place.dp)
    starts = (first + (m * place.dp + place.dp_rank) * size for m in range(rounds))
    return [list(range(start, start + size)) for start in starts]


@dataclass(frozen=True)
class Batches:
    """The training data of one rank, addressed by the number of sequences already used by all ranks together."""

    data: Windows
    place: Place
    per_step: int
    """Sequences of one whole optimiser step, over all ranks."""
    micro_batch_size: int
    document_mask: bool
    device: torch.device
    _ahead: dict[tuple[int, int], Future[list[Batch]]] = field(default_factory=dict, compare=False, repr=False)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "batches"), compare=False, repr=False
    )

    def at(self, position: int, count: int | None = None) -> list[Batch]:
        """This rank's micro-batches of the step of `count` sequences (None: a whole one) that begins at the global sequence
        `position`. A step of as many sequences that follows it is read meanwhile."""
        size = count or self.per_step
        ready = self._ahead.pop((position, size), None)
        self._ahead.clear()
        found = ready.result() if ready else self._read(position, size)
        self._ahead[position + size, size] = self._thread.submit(self._read, position + size, size)
        return [one.on(self.device) for one in found]

    def _read(self, position: int, size: int) -> list[Batch]:
        indices = micro_batches(position, size, self.micro_batch_size, self.place)
        return [collate([self.data[i] for i in group], self.document_mask) for group in indices]

    def tokens(self, first: int, end: int) -> dict[str, int]:
        """Domain → its tokens among the global sequences [first, end)."""
        before = self.data.read(first)
        return {name: tokens - before[name] for name, tokens in self.data.read(end).items()}
