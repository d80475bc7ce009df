"""Runs under other update rules: killed or stopped, they go on bit for bit, and under another layout to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launch import on_ranks
from tiny import KILL, ONE, STOP, Job, attempt, curve, new_run, prepare_data, recipe

from lablib.runs import Run
from lablib.specs import Optimizer, Parallelism, Pretrain, Ref
from lablib.specs.recipe import MuP
from lablib.train.able import check
from lablib.train.rules import shampoo

SETTINGS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": Optimizer(kind="muon", learning_rate=3e-3)},
    "soap": {"optimizer": Optimizer(kind="soap", learning_rate=3e-3)},
    "eight": {"optimizer": Optimizer(kind="adamw-8bit"), "cross_entropy": "fused"},
    "shampoo": {"optimizer": Optimizer(kind="shampoo", learning_rate=3e-3)},
    "chunked": {"cross_entropy": "chunked", "z_loss": 1e-4, "mup": MuP(hidden=32, layers=1)},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def data(root: Path) -> Ref:
    return prepare_data(root)


def run(root: Path, wanted: Pretrain, **settings: Any) -> Path:
    path = new_run(root, wanted)
    attempt(Job(path, wanted, **settings))
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_run_continues_bit_for_bit(root: Path, data: Ref, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shampoo, "EVERY", 3)  # its roots are used before the stop and after it
    wanted = recipe(data, **SETTINGS[name])
    whole, stopped = run(root, wanted), run(root, wanted, signal_after=(4, STOP))
    attempt(Job(stopped, wanted))
    assert curve(stopped) == curve(whole) and len(curve(whole)) == 5
    ran = Run.open(whole).manifest["notes"]["ran"]
    assert ran["attention"] == {"implementation": "documents"}
    assert ran["cross_entropy"] == wanted.cross_entropy and wanted.optimizer.kind in ran["optimizer"].lower()
    files = [path / "model" / "model.safetensors" for path in (stopped, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_8_bit_states_go_on_under_another_layout(root: Path, data: Ref) -> None:
    one, two = (
        recipe(data, layout, **SETTINGS["eight"]) for layout in (ONE, Parallelism(dp_shard=2, micro_batch_size=2))
    )
    whole, moved = run(root, one), run(root, one, signal_after=(3, STOP))
    on_ranks(2, attempt, Job(moved, two))
    assert curve(moved)[:3] == curve(whole)[:3]
    assert curve(moved)[3:] == [pytest.approx(row, rel=1e-3) for row in curve(whole)[3:]]


def test_killed_muon_continues_bit_for_bit_and_on_two_processes(root: Path, data: Ref) -> None:
    wanted = recipe(data, **SETTINGS["muon"])
    whole, killed = run(root, wanted), new_run(root, wanted)
    assert on_ranks(1, attempt, Job(killed, wanted, signal_after=(4, KILL))) == "killed"
    attempt(Job(killed, wanted))
    assert curve(killed) == curve(whole)
    moved = run(root, wanted, signal_after=(3, STOP))
    spread = recipe(data, Parallelism(dp_shard=2, micro_batch_size=2), **SETTINGS["muon"])
    on_ranks(2, attempt, Job(moved, spread))
    assert curve(moved)[3:] == [pytest.approx(row, rel=1e-4) for row in curve(whole)[3:]]


def test_what_the_trainer_does_of_it(data: Ref) -> None:
    for settings in SETTINGS.values():
        check(recipe(data, **settings))
