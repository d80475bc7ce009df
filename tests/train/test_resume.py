"""A run that is stopped, killed or torn continues exactly where it was: the same curve, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from launch import on_ranks
from tiny import KILL, STOP, Job, attempt, curve, new_run, recipe

from lablib.runs import Run
from lablib.specs import LabError, Optimizer, Pretrain, Ref, Stability
from lablib.train import checkpoint, step
from lablib.train.distributed import World


@pytest.fixture(scope="module")
def whole(root: Path, data: Ref) -> Path:
    """A run that nothing interrupted."""
    path = new_run(root, recipe(data))
    attempt(Job(path, recipe(data)))
    return path


@pytest.fixture(scope="module")
def stopped(root: Path, data: Ref) -> Path:
    """A run that was asked to stop after step 4 (its checkpoints: steps 3 and 4)."""
    path = new_run(root, recipe(data))
    attempt(Job(path, recipe(data), signal_after=(4, STOP)))
    return path


def copy(source: Path, name: str) -> Path:
    target = source.parent / name
    shutil.copytree(source, target)
    return target


def kinds(path: Path) -> list[str]:
    return [event["kind"] for event in Run.open(path).events()]


def model(path: Path) -> bytes:
    return (path / "model" / "model.safetensors").read_bytes()


def steps_saved(path: Path, name: str = "checkpoints") -> list[str]:
    return sorted(found.name for found in (path / name).iterdir())


def test_stop_saves_and_leaves_no_model(stopped: Path) -> None:
    assert Run.open(stopped).state == "stopped"
    assert len(curve(stopped)) == 4
    assert steps_saved(stopped) == ["step-00000003", "step-00000004"]
    assert not Run.open(stopped).artefacts


def test_stopped_run_continues_bit_for_bit(whole: Path, stopped: Path, data: Ref) -> None:
    path = copy(stopped, "continued")
    attempt(Job(path, recipe(data)))
    assert curve(path) == curve(whole)
    assert model(path) == model(whole)
    assert Run.open(path).rows("eval")[-1]["loss"] == Run.open(whole).rows("eval")[-1]["loss"]


def test_killed_run_continues_bit_for_bit(root: Path, whole: Path, data: Ref) -> None:
    path = new_run(root, recipe(data))
    assert on_ranks(1, attempt, Job(path, recipe(data), signal_after=(4, KILL))) == "killed"
    assert Run.open(path).state == "lost"
    attempt(Job(path, recipe(data)))
    assert "resumed" in kinds(path)
    assert curve(path) == curve(whole)
    assert model(path) == model(whole)


@pytest.mark.parametrize("forgotten", ["optimizer", "position", "step"])
def test_planted_forgetting_shows_in_the_curve(stopped: Path, whole: Path, data: Ref, forgotten: str) -> None:
    path = copy(stopped, f"forgot-{forgotten}")
    load = checkpoint.Checkpoints.load

    def forgetful(self: checkpoint.Checkpoints, model: object, optimizer: object, *rest: Any) -> checkpoint.Position:
        at = load(self, model, optimizer, *rest)
        assert at is not None
        if forgotten == "optimizer":
            optimizer.state.clear()  # type: ignore[attr-defined]
        changes = {"position": (at.step, 0), "step": (at.step - 1, at.sequences)}
        return checkpoint.Position(*changes.get(forgotten, (at.step, at.sequences)), at.science)

    with patch.object(checkpoint.Checkpoints, "load", forgetful):
        attempt(Job(path, recipe(data)))
    assert model(path) != model(whole)


@pytest.mark.parametrize("damage", ["no marker", "file missing", "file cut", "bit turned", "marker cut"])
def test_torn_checkpoint_is_passed_over(stopped: Path, whole: Path, data: Ref, damage: str) -> None:
    path = copy(stopped, f"torn-{damage.replace(' ', '-')}")
    newest = path / "checkpoints" / "step-00000004"
    shard = next(newest.glob("shard-*"))
    if damage == "no marker":
        (newest / checkpoint.MARKER).unlink()
    elif damage == "marker cut":
        (newest / checkpoint.MARKER).write_text('{"step": 4,')
    elif damage == "file missing":
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content if damage == "bit turned" else content[:-9])
    attempt(Job(path, recipe(data)))
    torn = [event["checkpoint"] for event in Run.open(path).events() if event["kind"] == "checkpoint_torn"]
    assert torn == ["step-00000004"]
    resumed = [event["at_step"] for event in Run.open(path).events() if event["kind"] == "resumed"]
    assert resumed == [3]
    assert curve(path) == curve(whole)


def test_half_written_checkpoint_is_ignored_and_cleared(stopped: Path, whole: Path, data: Ref) -> None:
    path = copy(stopped, "half")
    shutil.copytree(path / "checkpoints" / "step-00000004", path / "checkpoints" / ".step-00000005.writing")
    attempt(Job(path, recipe(data)))
    assert curve(path) == curve(whole)
    assert steps_saved(path) == ["step-00000004", "step-00000005"]


def test_only_the_last_checkpoints_are_kept(root: Path, data: Ref) -> None:
    wanted = recipe(data, checkpoint_every=1, keep_checkpoints=3)
    path = new_run(root, wanted)
    attempt(Job(path, wanted))
    assert steps_saved(path) == ["step-00000003", "step-00000004", "step-00000005"]


def test_permanent_checkpoints_are_kept_besides(root: Path, data: Ref) -> None:
    wanted = recipe(data, checkpoint_every=1, keep_checkpoints=1, permanent_every=2)
    path = new_run(root, wanted)
    attempt(Job(path, wanted))
    assert steps_saved(path) == ["step-00000002", "step-00000004", "step-00000005"]


def test_full_disk_is_one_clear_message_and_loses_nothing(stopped: Path, whole: Path, data: Ref) -> None:
    path = copy(stopped, "full")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        patch.object(checkpoint, "save_tensors", full),
        pytest.raises(LabError, match=r"step 5.*No space left.*free space"),
    ):
        attempt(Job(path, recipe(data)))
    assert steps_saved(path) == ["step-00000003", "step-00000004"]
    attempt(Job(path, recipe(data)))
    assert curve(path) == curve(whole)


def test_another_recipe_is_refused(stopped: Path, data: Ref) -> None:
    path = copy(stopped, "other")
    changed: Pretrain = recipe(data, optimizer=Optimizer(learning_rate=1e-3))
    with pytest.raises(LabError, match="another recipe"):
        attempt(Job(path, changed))


def test_finished_run_is_not_trained_again(whole: Path, data: Ref) -> None:
    path = copy(whole, "finished")
    attempt(Job(path, recipe(data)))
    assert curve(path) == curve(whole)
    assert model(path) == model(whole)


def test_checkpoints_hold_no_pickle(stopped: Path) -> None:
    files = [file for file in (stopped / "checkpoints").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}
    marker = json.loads((stopped / "checkpoints" / "step-00000004" / checkpoint.MARKER).read_text())
    assert (marker["step"], marker["sequences"]) == (4, 32)


def test_loss_that_is_not_finite_stops_before_the_update(root: Path, data: Ref) -> None:
    wanted = recipe(data, stability=Stability(max_rewinds=0))
    path = new_run(root, wanted)
    real = step.Stepper.loss_sum

    def broken(self: step.Stepper, batch: object) -> object:
        return real(self, batch) * (float("nan") if len(self.optimizer.state) and _steps(self) == 3 else 1.0)  # type: ignore[arg-type]

    with (
        patch.object(step.Stepper, "loss_sum", broken),
        pytest.raises(LabError, match=r"step 4: not finite.*learning_rate"),
    ):
        attempt(Job(path, wanted))
    assert len(curve(path)) == 3 and "not_finite" in kinds(path)
    assert steps_saved(path) == ["step-00000003"]


@pytest.mark.parametrize("torn", [True, False], ids=["torn", "of a path that was left"])
@pytest.mark.parametrize(
    ("stands_on", "keep", "then", "left"),
    [(100, 3, [110, 120], [100, 110, 120]), (100, 1, [110], [110]), (100, 1, [200], [200]), (0, 2, [10], [10])],
)
def test_later_checkpoints_do_not_crowd_out_new_ones(
    tmp_path: Path, torn: bool, stands_on: int, keep: int, then: list[int], left: list[int]
) -> None:
    weights, world = torch.nn.Linear(2, 2), World(0, 1, torch.device("cpu"))
    optimizer = torch.optim.AdamW(weights.parameters())

    def publish(to: checkpoint.Checkpoints, steps: list[int]) -> None:
        for at in steps:
            to.save(weights, optimizer, checkpoint.Position(at, 8 * at, "same"), "one")

    publish(checkpoint.Checkpoints(tmp_path, world, keep=3), [100, 190, 200])
    for later in (number for number in (100, 190, 200) if torn and number > stands_on):
        (tmp_path / f"step-{later:08d}" / "random-0.safetensors").unlink()
    again = checkpoint.Checkpoints(tmp_path, world, keep)
    again.load(weights, optimizer, "same", lambda marker: torn or marker["step"] <= stands_on)
    assert len(steps_saved(tmp_path.parent, tmp_path.name)) == 3 and again.whole(200) != torn
    publish(again, then)
    assert again.steps(bool) == left and all(map(again.whole, left))


def _steps(stepper: step.Stepper) -> int:
    return int(next(iter(stepper.optimizer.state.values()))["step"])
