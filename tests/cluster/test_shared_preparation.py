"""A `Prepare` of several tasks is one array on the real Slurm: in-process bytes, and a task that dies starts again alone."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import submit
from cluster.dev import DevSlurm
from lablib.data.prepare import prepare
from lablib.runs import Recorder, Run, RunState
from lablib.specs import Prepare, Profile


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def texts(folder: Path) -> Path:
    rng = random.Random(3)
    vocabulary = [f"w{rng.getrandbits(32):x}" for _ in range(900)]
    folder.mkdir()
    for number in range(12):
        rows = ["\n".join(rng.choices(vocabulary, k=2000))] * (1 + number % 2)
        (folder / f"{number:02}.txt").write_text(" ".join(rows) + (f" {number // 3}" if number % 3 else ""))
    return folder


def outcomes(run: Run) -> list[str]:
    return [event["outcome"] for event in run.events() if event["kind"] == "attempt"]


def test_an_array_gives_the_bytes_of_one_process_and_a_killed_task_starts_again_alone(
    slurm: DevSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Prepare(corpus=str(texts(tmp_path / "texts")), vocab=300, heldout=0.1, dedup={"threshold": 0.7})  # type: ignore[arg-type]
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "alone"))
    alone = Recorder.create(tmp_path / "alone-runs", recipe)
    prepare(recipe, alone)
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "shared"))
    where = Profile.load("slurm-dev").replace(gpus_per_node=1)
    first = submit(recipe.replace(tasks=4, part_bytes=20_000), where, root=tmp_path / "runs")
    runs = sorted((Run(path) for path in (tmp_path / "runs").glob("prepare-*")), key=lambda run: run.recipe.task)  # type: ignore[union-attr]
    assert (
        runs[0].path == first.path and len({str(run.held_by and run.held_by.job_id.split("_")[0]) for run in runs}) == 1
    )
    victim = runs[2]
    until(lambda: victim.pulses and victim.pulses[0].exit is None)
    os.kill(victim.pulses[0].pid, signal.SIGKILL)
    for run in runs:
        assert run.wait() is RunState.COMPLETED, run.failure
    until(lambda: outcomes(victim) == ["again", "completed"])
    assert all(outcomes(run) == ["completed"] for run in runs if run.path != victim.path)
    assert [set(run.artefacts) for run in runs] == [{"tokenizer", "data"}, set(), set(), set()]
    assert first.artefacts["data"].sha256 == Run(alone.path).artefacts["data"].sha256
