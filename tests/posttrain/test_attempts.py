"""Post-training in attempts: one that saved made progress, and what one rank knows ends all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_chat import COMMON, LEAP, layout

from cluster.settle import settle
from lablib.posttrain.sft import sft
from lablib.runs import Recorder, Run, RunState
from lablib.runs.orders import Order
from lablib.specs import SFT, Parallelism, Profile

sys.path.append(str(Path(__file__).resolve().parent.parent / "train"))
from launch import on_ranks


def recipe(tiny: Path, **changes: object) -> SFT:
    fields = {"model": str(tiny), "data": LEAP, "steps": 9, "batch_size": 4, "learning_rate": 1e-3, **layout(2)}
    return SFT(**{**fields, **COMMON, **changes})


def test_attempts_that_each_save_before_their_time_is_up_go_on_for_ever(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(tiny)
    run = Run.create(wanted, tmp_path, order=json.loads(Order(profile=Profile(name="short", retries=0)).to_json()))
    honest = Recorder.progress

    def until_the_limit(recorder: Recorder, done: float, total: float, unit: str = "steps") -> None:
        honest(recorder, done, total, unit)
        if done in (3, 6):
            recorder.request_stop("limit")

    monkeypatch.setattr(Recorder, "progress", until_the_limit)
    outcomes = []
    for attempt in range(3):
        monkeypatch.setenv("LAB_ATTEMPT", str(attempt))
        recorder = Recorder(run.path)
        with recorder.working():
            sft(wanted, recorder)
        outcomes.append(settle(run, attempt).outcome)
    assert outcomes == ["again", "again", "completed"]
    kept = [(event["at_step"], event["path"]) for event in run.events() if event["kind"] == "checkpoint"]
    assert (3, "checkpoints/checkpoint-3") in kept and (6, "checkpoints/checkpoint-6") in kept
    assert all((run.path / path).is_relative_to(run.path) for _, path in kept)


def spend(path: str) -> tuple[str, int]:
    """One rank's attempt at a run whose budget, which only rank 0 counts, is spent at once."""
    import os

    import torch.distributed as dist

    from lablib.runs import recorder

    recorder.LOOK = recorder.LOOK_BESIDE = 0.0
    os.environ.update(LAB_ATTEMPT="0", LOCAL_WORLD_SIZE=os.environ["WORLD_SIZE"], ACCELERATE_USE_CPU="true")
    hand = Recorder(Path(path), int(os.environ["RANK"]))
    with hand.working():
        sft(hand.recipe, hand)  # type: ignore[arg-type]
    if dist.is_initialized():
        dist.destroy_process_group()
    return str(Run(Path(path)).state), hand.rank


def test_a_budget_that_is_spent_ends_both_ranks(tiny: Path, tmp_path: Path) -> None:
    wanted = recipe(tiny, steps=50, parallelism=Parallelism(dp_replicate=2, micro_batch_size=2))
    run = Run.create(wanted, tmp_path, order=json.loads(Order(max_gpu_hours=1e-9).to_json()))
    on_ranks(2, spend, str(run.path))
    assert run.state is RunState.STOPPED and [pulse.exit in (0, 75) for pulse in run.pulses] == [True, True]
    assert [event["why"] for event in run.events() if event["kind"] == "stopped"] == ["budget"]
    assert [event["at_step"] for event in run.events() if event["kind"] == "checkpoint"] == [1]
