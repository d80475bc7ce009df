"""What mid-training and merging begin from is looked at before they queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import submit
from cluster.starts import faults
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Merge, Midtrain, ModelSpec, Prepare, Pretrain, Ref
from lablib.train.checkpoint import kept
from lablib.train.loop import due

TINY = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)
SIZE = {"model": TINY, "tokens": 2560, "seq_len": 64, "batch_tokens": 256, "precision": "fp32"}


def parent(root: Path, ended: bool = True, **changes: object) -> Run:
    """A run of ten steps with the checkpoints of steps 4, 8 and 10."""
    run = Recorder.create(root, Pretrain(**{**SIZE, **changes}))
    if ended:
        with run.working():
            for step in (4, 8, 10):
                (run.path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
            (run.path / "model").mkdir()
            (run.path / "model" / "config.json").write_text("{}")
            run.artefact("model", run.path / "model", kind="model")
    return Run(run.path)


def said(root: Path, start: Ref | str, from_step: int | None = None) -> str:
    return "; ".join(faults(Midtrain(start=start, from_step=from_step, **SIZE), root))


def test_a_model_that_is_there_is_a_start(tmp_path: Path) -> None:
    run = parent(tmp_path)
    for start in (run.model, str(run.path / "model"), "smollm2-135m-instruct"):
        assert said(tmp_path, start) == ""
    assert said(tmp_path, run.model, 8) == ""
    assert not list(faults(Merge(models=(run.model,), steps=(4, 8)), tmp_path))
    assert not list(faults(Prepare(), tmp_path))


def test_text_that_names_a_run_is_told_how_to_refer_to_it(tmp_path: Path) -> None:
    """What it says to write is a reference."""
    run = parent(tmp_path)
    for text in (run.id, str(run.path)):
        told = said(tmp_path, text)
        assert "is a run, not a model" in told
        assert Ref(**json.loads(told[told.index("{") : told.index("}") + 1])) == run.model
    assert "config.json" in said(tmp_path, "nowhere")
    assert "whose weights the lab has not" in said(tmp_path, "llama-3-8b")


def test_what_is_no_model_is_no_start(tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, Prepare())
    (run.path / "data").mkdir()
    run.artefact("data", run.path / "data", kind="data")
    assert "of kind 'data'" in said(tmp_path, Run(run.path).ref("data"))


@pytest.mark.parametrize(
    ("step", "told"), [(7, r"keeps checkpoints \[4, 8, 10\]"), (11, "only 10 steps"), (8, ""), (10, "")]
)
def test_a_checkpoint_of_a_run_that_has_ended(tmp_path: Path, step: int, told: str) -> None:
    run = parent(tmp_path)
    found = said(tmp_path, run.model, step)
    assert bool(found) == bool(told)
    if told:
        with pytest.raises(LabError, match=told):
            submit(Midtrain(start=run.model, from_step=step, **SIZE), root=tmp_path)
    assert (step in (8, 10)) == (
        not list(faults(Merge(models=(run.model,), steps=(4, step) if step > 4 else (step,)), tmp_path))
    )


@pytest.mark.parametrize(
    ("every", "step", "told"),
    [(4, 8, ""), (4, 10, ""), (4, 7, "each 4 steps"), (None, 8, "none (permanent_every is not set)"), (4, 12, "only 10 steps")],
)  # fmt: skip
def test_a_checkpoint_of_a_run_that_has_not(tmp_path: Path, every: int | None, step: int, told: str) -> None:
    """It waits for the run's end, by when only the last ones are left and those that are kept for good."""
    run = parent(tmp_path, ended=False, permanent_every=every)
    (run.path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)  # what is there now may go
    assert said(tmp_path, run.model) == "" and told in said(tmp_path, run.model, step)
    assert bool(said(tmp_path, run.model, step)) == bool(told)


@pytest.mark.parametrize(("every", "saved"), [(24, None), (24, 24), (4, 10), (30, 20)])
def test_checkpoints_that_will_be_there_are_those_that_the_loop_keeps(tmp_path: Path, every: int, saved: int | None) -> None:  # fmt: skip
    """245 steps write one each 25, unless they are told otherwise: step 168 is a multiple of `every` that nobody writes."""
    run = parent(tmp_path, ended=False, tokens=245 * 256, permanent_every=every, checkpoint_every=saved)
    written = [step for step in range(1, 246) if due(step, saved, 245, times=10)]
    there = {step for step in range(1, 246) if not said(tmp_path, run.model, step)}
    assert there == kept(written, 1, 0, every)


def test_a_reference_to_another_recipe_says_what_to_write(tmp_path: Path) -> None:
    run = parent(tmp_path)
    assert run.model.model_dump_json() in said(tmp_path, run.model.replace(science="0" * 16), 8)
    with pytest.raises(LabError, match=r"science missing: Run.open\('parent'\)"):
        Midtrain.from_json(
            json.dumps({"start": {"run": "parent", "artefact": "model"}, **SIZE, "model": json.loads(TINY.to_json())})
        )
    with pytest.raises(LabError, match="model and start missing"):
        Midtrain(tokens=1)
