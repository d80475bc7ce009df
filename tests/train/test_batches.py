"""The order of the data: every sequence once, whatever the layout, to the last batch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import prepare_data, recipe

from lablib.data import PackedDataset
from lablib.models.layout import Place
from lablib.runs import Run
from lablib.specs import Parallelism
from lablib.train.batches import Batch, Batches, collate, micro_batches

CPU = torch.device("cpu")


@given(
    replicate=st.integers(1, 4), shard=st.integers(1, 4), tp=st.integers(1, 4), size=st.integers(1, 3), rounds=st.integers(1, 4),
    steps=st.integers(1, 4),
)  # fmt: skip
def test_ranks_tile_every_step(replicate: int, shard: int, tp: int, size: int, rounds: int, steps: int) -> None:
    layout = Parallelism(dp_replicate=replicate, dp_shard=shard, tp=tp, micro_batch_size=size)
    per_step = size * layout.dp * rounds
    for step in range(steps):
        taken = [micro_batches(step * per_step, per_step, size, Place.of(rank, layout)) for rank in range(layout.gpus)]
        assert all(len(rank) == rounds and {len(batch) for batch in rank} == {size} for rank in taken)
        once = sorted(i for rank in taken[::tp] for batch in rank for i in batch)
        assert once == list(range(step * per_step, (step + 1) * per_step))
        assert all(taken[rank] == taken[rank - rank % tp] for rank in range(layout.gpus))


def test_the_last_batch_is_whole_and_positions_are_exact(tmp_path: Path) -> None:
    wanted = recipe(prepare_data(tmp_path), tokens=1000)
    assert wanted.steps == 4  # 1000 / 256, and the last step completes it
    assert wanted.steps * wanted.step_tokens == 1024


@pytest.fixture
def windows(tmp_path: Path) -> PackedDataset:
    return PackedDataset(Run.open(tmp_path / prepare_data(tmp_path).run).artefact_path("data"), seq_len=32)


def test_labels_are_the_next_token_of_the_same_document(windows: PackedDataset) -> None:
    chosen = [windows[i] for i in range(6)]
    batch = collate(chosen, True)
    for row, window in enumerate(chosen):
        for at in range(32):
            same = window.documents[at] == window.documents[at + 1]
            assert batch.labels[row, at] == (window.tokens[at + 1] if same else -100)
        assert np.array_equal(batch.inputs[row], window.tokens[:-1])
        assert np.array_equal(batch.positions[row], window.positions[:-1])
    assert batch.targets == int((batch.labels != -100).sum()) < batch.labels.numel()


def test_without_the_document_mask_positions_run_on(windows: PackedDataset) -> None:
    batch = collate([windows[0], windows[1]], False)
    assert batch.positions.tolist() == [list(range(32))] * 2


class Watched:
    """Windows, and which thread asked for which."""

    def __init__(self, windows: PackedDataset) -> None:
        self.windows, self.asked = windows, list[tuple[int, bool]]()

    def __getitem__(self, index: int) -> Any:
        self.asked.append((index, threading.current_thread() is threading.main_thread()))
        return self.windows[index]

    def read(self, count: int) -> dict[str, int]:
        return self.windows.read(count)


def plainly(windows: PackedDataset, first: int, size: int) -> list[Batch]:
    return [collate([windows[at], windows[at + 1]], True) for at in range(first, first + size, 2)]


def test_the_next_step_is_read_while_this_one_trains(windows: PackedDataset) -> None:
    watched = Watched(windows)
    batches = Batches(watched, Place.of(0, Parallelism()), 4, 2, True, CPU)
    for first, size, own in ((0, 4, True), (4, 4, False), (8, 4, False), (20, 4, True), (24, 6, True), (30, 6, False)):
        watched.asked.clear()
        found = batches.at(first, size)
        assert all(torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) and torch.equal(a.positions, b.positions)
                   for a, b in zip(found, plainly(windows, first, size), strict=True))  # fmt: skip
        batches._ahead[first + size, size].result()
        assert {index for index, main in watched.asked if main} == (set(range(first, first + size)) if own else set())
        assert {index for index, main in watched.asked if not main} == set(range(first + size, first + 2 * size))
