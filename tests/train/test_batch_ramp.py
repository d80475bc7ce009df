"""A batch that grows while training: each sequence read once and in order, and the same run after a stop inside the ramp."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from launch import on_ranks
from tiny import BATCH, SEQ_LEN, STOP, Job, attempt, curve, new_run, recipe

from lablib.runs import Run
from lablib.specs import LabError, Parallelism, Pretrain, Ref
from lablib.specs.batching import BatchRamp
from lablib.train import batches
from lablib.train.able import check

RAMP = BatchRamp(start=BATCH * SEQ_LEN // 2, tokens=2 * BATCH * SEQ_LEN)
SIZES = [4, 4, 4, 4, 8, 8, 8]
"""Sequences of each step: two batches' worth in halves, then the other three."""


@pytest.fixture(scope="module")
def whole(root: Path, data: Ref) -> tuple[Path, list[int]]:
    """A run that nothing interrupted, and the sequences that it trained on, in order."""
    path, read, real = new_run(root, ramped(data)), list[int](), batches.Batches.at

    def noted(self: batches.Batches, position: int, count: int) -> list[batches.Batch]:
        found = real(self, position, count)
        wanted = [self.data[index] for index in range(position, position + count)]
        given = [row.numpy() for batch in found for row in batch.inputs]
        assert all((row == window.tokens[:-1]).all() for row, window in zip(given, wanted, strict=True))
        read.extend(range(position, position + count))
        return found

    with patch.object(batches.Batches, "at", noted):
        attempt(Job(path, ramped(data)))
    return path, read


def ramped(data: Ref, layout: Parallelism | None = None) -> Pretrain:
    return recipe(data, layout or Parallelism(micro_batch_size=2), batch_ramp=RAMP)


def test_steps_grow_and_read_everything_once(whole: tuple[Path, list[int]]) -> None:
    path, read = whole
    rows = Run.open(path).rows()
    assert [row["tokens"] for row in rows] == [sum(SIZES[: n + 1]) * SEQ_LEN for n in range(len(SIZES))]
    assert read == list(range(sum(SIZES)))


def test_stopped_inside_the_ramp_it_continues_bit_for_bit(root: Path, data: Ref, whole: tuple[Path, list[int]]) -> None:
    path = new_run(root, ramped(data))
    attempt(Job(path, ramped(data), signal_after=(2, STOP)))
    assert len(curve(path)) == 2
    attempt(Job(path, ramped(data)))
    assert curve(path) == curve(whole[0])


@pytest.mark.slow
def test_two_processes_grow_alike(root: Path, data: Ref, whole: tuple[Path, list[int]]) -> None:
    wanted = ramped(data, Parallelism(dp_shard=2, micro_batch_size=1))
    path = new_run(root, wanted)
    on_ranks(2, attempt, Job(path, wanted))
    for found, one in zip(curve(path), curve(whole[0]), strict=True):
        assert found == pytest.approx(one, rel=5e-6)


def test_every_size_fills_a_pipeline(data: Ref) -> None:
    check(ramped(data, Parallelism(pp=2, micro_batch_size=2)))
    with pytest.raises(LabError, match=r"1 micro-batches does not fill.*make batch_ramp.start a multiple of 2 × 4"):
        check(ramped(data, Parallelism(pp=2, micro_batch_size=4)))
