"""What pairs and race have in common: a step written by hand, and HF Trainer on the lab's windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lablib.train.batches import Batches, Windows

Step = Callable[[int], float]
"""Trains on the sequences from an index on: the step's loss in nats a target."""


def by_hand(model: Any, optimizer: torch.optim.Optimizer, batches: Batches, run: Any = None) -> Step:
    """A step as one would write it without a library; `run` is the compiled model where it is to be used."""

    forward = model if run is None else run

    def step(first: int) -> float:
        micro, total = batches.at(first), 0.0
        targets = sum(batch.targets for batch in micro)
        for batch in micro:
            logits = forward(input_ids=batch.inputs, position_ids=batch.positions, use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum") / targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


class Rows(torch.utils.data.IterableDataset):
    """The first windows of a data set in order, as the Trainer reads them, with or without documents."""

    def __init__(self, windows: Windows, count: int, documents: bool) -> None:
        self.windows, self.count, self.documents = windows, count, documents

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for index in range(self.count):
            window = self.windows[index]
            row = {"input_ids": window.tokens[:-1], "labels": window.labels, "shift_labels": window.labels}
            row |= {"position_ids": window.positions[:-1]} if self.documents else {}
            yield {name: torch.from_numpy(array) for name, array in row.items()}


def hosted(model: Any, windows: Windows, steps: int, micro: int, per_step: int, documents: bool, callbacks: Sequence[TrainerCallback] = (), **settings: Any) -> float:  # fmt: skip
    """Train `model` in HF Trainer, all defaults but for `settings`, the batch (sequences) and the writing of files: its mean
    loss."""
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=micro, gradient_accumulation_steps=per_step // micro, use_cpu=True,
            save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False, **settings,
        )  # fmt: skip
        rows = Rows(windows, steps * per_step, documents)
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=list(callbacks))
        trainer.remove_callback(PrinterCallback)
        return float(trainer.train().training_loss)
