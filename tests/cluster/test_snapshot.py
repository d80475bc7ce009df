"""A run imports the code it was submitted with, whatever happens to the checkout afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import resume, snapshot, stop, submit
from lablib.runs import Run, RunState, orders
from lablib.specs import LabError, Prepare

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for package in snapshot.PACKAGES:
        shutil.copytree(REPO / package, tmp_path / "checkout" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "checkout"


def test_equal_code_has_one_copy_and_another_byte_or_name_another(tmp_path: Path, checkout: Path) -> None:
    first = snapshot.take(tmp_path, checkout)
    assert snapshot.take(tmp_path, checkout) == first == snapshot.fingerprint(REPO)
    assert snapshot.fingerprint(snapshot.folder(tmp_path, first)) == first
    (checkout / "lablib" / "more.py").write_text("")
    second = snapshot.take(tmp_path, checkout)
    (checkout / "lablib" / "more.py").rename(checkout / "lablib" / "other.py")
    assert len({first, second, snapshot.take(tmp_path, checkout)}) == 3
    assert {file.name[:5] for file in (tmp_path / orders.CODE).iterdir()}.isdisjoint({".half"})


def test_a_module_that_is_edited_while_the_job_waits_does_not_change_what_runs(
    tmp_path: Path, checkout: Path, home: Path, runs: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    for number, file in enumerate(sorted((REPO / "tests").rglob("*.py"))):
        (tmp_path / "corpus" / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    recipe = Prepare(corpus=str(tmp_path / "corpus"), vocab=512, heldout=0.1)
    blocker = Run.create(recipe, runs)
    code = f"""
import sys
from cluster import submit
from lablib.runs import Run
from lablib.specs import load_recipe
print(submit(load_recipe(sys.argv[1]), after=Run.open({str(blocker.path)!r})).id)
"""
    recipe.save(tmp_path / "recipe.json")
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "recipe.json")], cwd=checkout, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = checkout / "lablib" / "stages"
    target = stages / "__init__.py" if stages.is_dir() else checkout / "lablib" / "stages.py"
    target.write_text("raise RuntimeError('the edited code ran')\n")
    run = Run.open(done.stdout.strip())
    stop(blocker)
    run.order.replace(after=()).save(run.path / "order.json")
    submit(recipe)  # an own submission imports this checkout's code, of the same hash as the unedited one
    while not run.pulses:  # it waits for the blocker until it is killed; its next attempt waits for nothing
        time.sleep(0.1)
    os.kill(run.pulses[0].pid, 9)
    assert run.wait() is RunState.COMPLETED, run.failure
    assert run.manifest["code"]["snapshot"] == run.order.code == snapshot.fingerprint(REPO)


def textless(folder: Path) -> Path:
    """A corpus whose only row has no text: a run of it fails."""
    made = folder / "textless"
    made.mkdir()
    (made / "row.jsonl").write_text('{"text": 1}')
    return made


def test_a_copy_that_was_changed_is_refused_and_the_next_submission_takes_a_fresh_one(
    tmp_path: Path, home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(Prepare(corpus=str(textless(tmp_path)), vocab=512))
    assert run.wait() is RunState.FAILED
    copy, code = snapshot.folder(runs, run.order.code), run.order.code
    with pytest.raises(LabError, match="not the code"):
        snapshot.check(run.path, code)
    monkeypatch.setattr(snapshot, "SOURCE", copy)
    snapshot.check(run.path, code)
    (copy / "lablib" / "more.py").write_text("")
    with pytest.raises(LabError, match="was changed after"):
        snapshot.check(run.path, code)
    monkeypatch.undo()
    monkeypatch.setenv("LAB_HOME", str(home))
    assert resume(run).wait() is RunState.FAILED
    assert "nothing in it can be read" in run.failure and snapshot.fingerprint(copy) == run.order.code


def test_no_secret_of_the_environment_reaches_a_run(
    tmp_path: Path, home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "hf_" + "Planted0Secret" * 2
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, planted)
    run = submit(Prepare(corpus=str(textless(tmp_path)), vocab=512))
    assert run.wait() is RunState.FAILED
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if planted.encode() in file.read_bytes()]
