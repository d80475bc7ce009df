"""Checkpoints written beside the training: the same run and the same files, and kill -9 inside a write loses only that one."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from launch import on_ranks
from safetensors.torch import load_file
from tiny import BATCH, KILL, STOP, Job, attempt, curve, new_run, recipe

from lablib.models.context import context_masks
from lablib.plan import estimate, memory
from lablib.plan.pretraining import job
from lablib.runs import Recorder, Run
from lablib.specs import Accelerator, Cluster, LabError, ModelSpec, Parallelism, Pretrain, Ref, Stability
from lablib.train import checkpoint, loop, sharded
from lablib.train.distributed import joined
from lablib.train.pretrain import assemble
from lablib.train.source import find_source
from lablib.train.stability import Spike

FSDP = Parallelism(dp_shard=2, micro_batch_size=2)


@pytest.fixture(scope="module")
def at_once(root: Path, data: Ref) -> Path:
    """A run that waits for each of its checkpoints."""
    return trained(root, recipe(data, checkpoint_every=2, keep_checkpoints=9))


def beside(data: Ref, **changes: Any) -> Pretrain:
    settings = {"checkpoint_every": 2, "keep_checkpoints": 9, "async_checkpoints": True}
    return recipe(data, **{**settings, **changes})


def trained(root: Path, wanted: Pretrain) -> Path:
    path = new_run(root, wanted)
    attempt(Job(path, wanted))
    return path


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor of every checkpoint, and of the model."""
    found = [*(path / "checkpoints").glob("step-*/*.safetensors"), path / "model" / "model.safetensors"]
    return {
        f"{file.relative_to(path)}: {name}": tensor.numpy().tobytes()
        for file in found
        for name, tensor in load_file(file).items()
    }


def test_the_plan_counts_the_copy_that_is_written(at_once: Path, data: Ref) -> None:
    wanted, machine = beside(data), Cluster(accelerator="h100-sxm", nodes=1, gpus_per_node=1)
    (first, *_) = sorted((at_once / "checkpoints").glob("step-*"))
    shards = [file for file in first.glob("*.safetensors") if not file.name.startswith("random")]
    written = sum(tensor.nbytes for file in shards for tensor in load_file(file).values())
    plain, copied = (estimate(one, machine).memory for one in (wanted.replace(async_checkpoints=False), wanted))
    assert (copied.host_gib - plain.host_gib) * 2**30 == pytest.approx(written)
    assert copied.peak_gib == plain.peak_gib
    cpu = calibrated()
    plain, copied = (estimate(one, cpu).memory for one in (wanted.replace(async_checkpoints=False), wanted))
    assert (copied.peak_gib - plain.peak_gib) * 2**30 == pytest.approx(written)
    assert sum(copied.parts.values()) == pytest.approx(copied.peak_gib)


def test_the_plan_counts_the_masks_of_slices() -> None:
    spec, length = ModelSpec(family="gemma3", layers=4, hidden=64, heads=4, ffn=128, vocab=128, sliding_window=8, window_every=2), 64  # fmt: skip
    layout = Parallelism(cp=2, micro_batch_size=3)
    wanted = Pretrain(model=spec, tokens="1M", seq_len=length, batch_tokens=6 * length, parallelism=layout)
    masks = context_masks(spec.to_hf(), torch.arange(length).repeat(3, 1), 0, 2, torch.bfloat16)
    assert isinstance(masks, dict)
    assert memory.mask(job(wanted)) == sum(mask.nbytes for mask in masks.values())
    assert memory.mask(job(wanted.replace(parallelism=Parallelism(dp_shard=2)))) == 0


def calibrated() -> Cluster:
    """A CPU, as `lab calibrate` describes one."""
    core = Accelerator(
        name="a", kind="cpu", memory_gib=8, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1, "bf16": 0.1}
    )
    return Cluster(name="x", accelerator=core, nodes=1, gpus_per_node=1)


def saved(path: Path) -> list[int]:
    return [event["at_step"] for event in Run.open(path).events() if event["kind"] == "checkpoint"]


def slow(release: threading.Event, met: list[int]) -> Any:
    """`save_tensors` that does not begin before `release`, and counts who is inside it."""
    inside: list[int] = []

    def save(*args: Any) -> None:
        inside.append(1)
        met.append(len(inside))
        assert release.wait(60), "the training waited for the write"
        sharded.save_tensors(*args)
        inside.pop()

    return save


def let_go_after(step: int, release: threading.Event) -> Any:
    logged = Recorder.log

    def log(self: Recorder, at: int, stream: str = "train", **values: Any) -> None:
        logged(self, at, stream, **values)
        if stream == "train" and at == step:
            release.set()

    return log


def test_training_goes_on_while_the_state_of_then_is_written(root: Path, data: Ref, at_once: Path) -> None:
    release, met = threading.Event(), list[int]()
    with (
        patch.object(checkpoint, "save_tensors", slow(release, met)),
        patch.object(Recorder, "log", let_go_after(3, release)),
    ):
        path = trained(root, beside(data))
    assert curve(path) == curve(at_once) and tensors(path) == tensors(at_once)
    assert saved(path) == saved(at_once) == [2, 4, 5]
    assert met == [1, 1, 1]


def test_planted_state_that_is_not_copied_is_torn(root: Path, data: Ref, at_once: Path) -> None:
    release, plain = threading.Event(), sharded.settled
    with (
        patch.object(checkpoint, "save_tensors", slow(release, [])),
        patch.object(checkpoint, "settled", lambda tensors, copied: plain(tensors, copied=False)),
        patch.object(Recorder, "log", let_go_after(3, release)),
    ):
        path = trained(root, beside(data))
    assert curve(path) == curve(at_once) and tensors(path) != tensors(at_once)


def test_a_run_that_is_stopped_waits_for_its_checkpoint(root: Path, data: Ref, at_once: Path) -> None:
    path = new_run(root, beside(data))
    attempt(Job(path, beside(data), signal_after=(3, STOP)))
    assert saved(path) == [2, 3] and Run.open(path).state == "stopped"
    attempt(Job(path, beside(data)))
    assert curve(path) == curve(at_once)


def dies_inside_the_second_write(job: Job) -> None:
    """kill -9 when half of the files are there."""
    count = 0

    def save(tensors: sharded.Tensors, folder: Path, group: Any = None) -> None:
        nonlocal count
        count += 1
        kept = dict(list(tensors.items())[:: count if count < 2 else 2])
        sharded.save_tensors(kept, folder, group)
        if count == 2:
            os.kill(os.getpid(), KILL)

    with patch.object(checkpoint, "save_tensors", save):
        attempt(job)


def test_killed_inside_a_write_the_one_before_is_used(root: Path, data: Ref, at_once: Path) -> None:
    path = new_run(root, beside(data))
    assert on_ranks(1, dies_inside_the_second_write, Job(path, beside(data))) == "killed"
    assert [found.name for found in (path / "checkpoints").glob("step-*")] == ["step-00000002"]
    attempt(Job(path, beside(data)))
    resumed = [event["at_step"] for event in Run.open(path).events() if event["kind"] == "resumed"]
    assert resumed == [2] and curve(path) == curve(at_once)
    assert not list((path / "checkpoints").glob(".*"))


def test_a_write_that_fails_is_told_and_loses_nothing(root: Path, data: Ref, at_once: Path) -> None:
    path = new_run(root, beside(data))
    attempt(Job(path, beside(data), signal_after=(2, STOP)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with patch.object(checkpoint, "save_tensors", full), pytest.raises(LabError, match=r"step 4.*No space.*free space"):
        attempt(Job(path, beside(data)))
    assert [found.name for found in (path / "checkpoints").iterdir()] == ["step-00000002"]
    attempt(Job(path, beside(data)))
    assert curve(path) == curve(at_once)


def test_what_the_training_failed_of_is_told_first(root: Path, data: Ref) -> None:
    """A write beside it that fails too is a note."""
    failed, path = threading.Event(), new_run(root, beside(data))

    def full(*_: object) -> None:
        failed.set()
        raise OSError(28, "No space left on device")

    def log(self: Recorder, at: int, stream: str = "train", **values: Any) -> None:
        if at == 3:
            assert failed.wait(60)
            raise ValueError("of its own")

    with (
        patch.object(checkpoint, "save_tensors", full),
        patch.object(Recorder, "log", log),
        pytest.raises(ValueError, match="of its own"),
    ):
        attempt(Job(path, beside(data)))
    (told,) = (event for event in Run.open(path).events() if event["kind"] == "failed")
    assert told["reason"] == "ValueError: of its own" and "failed too: checkpoint of step 2" in told["traceback"]


def test_two_processes_write_beside_and_one_goes_on(root: Path, data: Ref, at_once: Path) -> None:
    path = new_run(root, beside(data, parallelism=FSDP))
    on_ranks(2, attempt, Job(path, beside(data, parallelism=FSDP), signal_after=(3, STOP)))
    assert saved(path) == [2, 3]
    alone = path.with_name("alone")
    shutil.copytree(path, alone)
    attempt(Job(alone, beside(data)))
    for found, wanted in zip(curve(alone), curve(at_once), strict=True):
        assert found == pytest.approx(wanted, rel=5e-6)


def test_what_was_published_before_a_spike_is_told_before_the_run_goes_back(root: Path, data: Ref) -> None:
    """Else step 1, saved again right after a rewind to step 0, would be told twice of one save."""
    wanted = beside(data, checkpoint_every=1, stability=Stability(patience=1, window=16))
    run, told = Recorder(new_run(root, wanted)), list[str]()
    with joined(1) as world:
        source = find_source(wanted, run, world)
        assert source is not None
        parts = assemble(wanted, run, world, source)
    at = loop.resume(wanted, run, parts)
    for _ in range(2):
        at = loop.moved(at, at.sequences, parts.batches.per_step, parts.batches, updated=True)
        loop.save(wanted, run, parts, at)
    with patch.object(run, "event", lambda kind, **_: told.append(kind)):
        again = loop.go_back(wanted, run, parts, Spike("planted", 2, 2, BATCH, 2 * BATCH))
        loop.save(wanted, run, parts, loop.moved(again, again.sequences, BATCH, parts.batches, updated=True))
        loop.settle(run, parts)
    assert [kind for kind in told if kind in ("checkpoint", "rewound")] == [
        "checkpoint",
        "checkpoint",
        "rewound",
        "checkpoint",
    ]


def test_the_field_is_execution() -> None:
    assert "async_checkpoints" in Pretrain.EXECUTION
