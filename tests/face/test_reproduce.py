"""Running a report again: a real data stage on real text, and a chain whose references must move along."""

from __future__ import annotations

from pathlib import Path

import made
import pytest

from lablib.report import export, reproduce
from lablib.runs import Recorder, Run
from lablib.specs import SFT, AnyRecipe, Evaluate, LabError, Prepare, Pretrain, Recipe
from lablib.stages import execute


def carry_out(recipe: AnyRecipe, root: Path) -> Run:
    """A stage of the lab, in this process."""
    with Recorder.create(root, recipe).working() as run:
        execute(recipe, run)
    return Run(run.path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text: a part of this interpreter's standard library."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(made.json.__file__).parent.parent
    for name in ("json/decoder.py", "json/encoder.py", "textwrap.py", "string.py", "bisect.py", "heapq.py", "shlex.py"):
        (folder / f"{name.replace('/', '_')}.txt").write_text((library / name).read_text(encoding="utf-8"))
    return folder


def test_a_real_stage_gives_the_same_bytes_again(
    corpus: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizer and shards made anew, with no cache between them, are equal to the last bit."""
    run = carry_out(Prepare(name="data", corpus=str(corpus), vocab=300, heldout=0.2), tmp_path / "first")
    report = export(run, tmp_path / "report.html", question="Is it the same again?")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "another home"))
    rows = reproduce(report, lambda recipe, after: carry_out(recipe, tmp_path / "again"))
    assert [row["figure"] for row in rows] == ["state", "sha256 of tokenizer", "sha256 of data"]
    assert all(row["same"] and row["rule"] == "exact" for row in rows)


def test_a_change_of_the_input_is_found(corpus: Path, tmp_path: Path, home: Path) -> None:
    """One word more in one document: the state is the same, the bytes are not."""
    mine = tmp_path / "corpus"
    mine.mkdir()
    for file in corpus.iterdir():
        (mine / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    run = carry_out(Prepare(name="data", corpus=str(mine), vocab=300, heldout=0.2), tmp_path / "first")
    report = export(run, tmp_path / "report.html")
    first = min(mine.iterdir())
    first.write_text(
        first.read_text(encoding="utf-8") + "\nOne word more: zyzzyva zyzzyva zyzzyva.\n", encoding="utf-8"
    )
    rows = reproduce(report, lambda recipe, after: carry_out(recipe, tmp_path / "again"))
    told = {row["figure"]: row["same"] for row in rows}
    assert told["state"] and not told["sha256 of data"]


def again(recipe: Recipe, root: Path, loss: float = 0.0) -> Run:
    """The made stages of the chain, with real recorders; `loss` is added to every logged loss."""
    work = {"prepare": made.prepared, "evaluate": made.evaluated}.get(recipe.stage, made.model)
    run = made.start(root, recipe)
    if loss:
        run.log = lambda step, stream="train", **row: Recorder.log(
            run, step, stream, **{**row, "loss": row["loss"] + loss}
        )  # type: ignore[method-assign]
    with run.working():
        work(run)
    return Run(run.path)


def test_references_point_to_the_new_runs(chain: list[Run], tmp_path: Path) -> None:
    """Each stage gets the runs that were made just now, and the experiment's hash does not change."""
    report = export(chain[:4], tmp_path / "report.html")
    calls: list[tuple[AnyRecipe, list[Run]]] = []

    def executor(recipe: AnyRecipe, after: list[Run]) -> Run:
        calls.append((recipe, after))
        return again(recipe, tmp_path / "again")

    rows = reproduce(report, executor)
    data, base, tuned, scored = (recipe for recipe, _ in calls)
    assert isinstance(base, Pretrain) and isinstance(tuned, SFT) and isinstance(scored, Evaluate)
    for recipe, after in calls:
        given = {run.id for run in after}
        assert {ref.run for ref in recipe.refs()} == given and not given & {run.id for run in chain}
    assert [len(after) for _, after in calls] == [0, 1, 1, 2]
    assert [recipe.science_hash for recipe in (data, base, tuned, scored)] == [
        run.recipe.science_hash for run in chain[:4]
    ]
    assert all(row["same"] for row in rows) and {
        "state",
        "final loss",
        "sha256 of model",
        "base on sums (accuracy)",
    } <= {row["figure"] for row in rows}


def test_another_loss_is_no_reproduction(chain: list[Run], tmp_path: Path) -> None:
    """On the same machine a millionth is a difference; elsewhere only the tolerance counts."""
    report = export(chain[:2], tmp_path / "report.html")
    rows = reproduce(report, lambda recipe, after: again(recipe, tmp_path / "again", loss=1e-6))
    assert [row["same"] for row in rows if row["figure"] == "final loss"] == [False]
    elsewhere = reproduce(report, lambda recipe, after: _moved(again(recipe, tmp_path / "else", loss=1e-6)))
    told = next(row for row in elsewhere if row["figure"] == "final loss")
    assert told["same"] and told["rule"] == "within 0.05"
    far = reproduce(report, lambda recipe, after: _moved(again(recipe, tmp_path / "far", loss=0.5)))
    assert not next(row for row in far if row["figure"] == "final loss")["same"]


def _moved(run: Run) -> Run:
    """The run as if another processor had made it."""
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cpu": "', '"cpu": "another '))
    return run


def test_only_some_stages_and_what_they_need(chain: list[Run], tmp_path: Path) -> None:
    """A stage pulls in the runs that it refers to, and no other."""
    report = export(chain[:4], tmp_path / "report.html")
    rows = reproduce(report, lambda recipe, after: again(recipe, tmp_path / "again"), stages=["sft"])
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["data", "pretrain", "sft"]
    with pytest.raises(LabError, match="the report has data, pretrain, sft, evaluate"):
        reproduce(report, lambda recipe, after: chain[0], stages=["export"])


def test_what_needs_a_failed_stage_is_not_run(chain: list[Run], tmp_path: Path) -> None:
    """The table says why, and the executor is not asked."""
    report = export(chain[:3], tmp_path / "report.html")

    def executor(recipe: AnyRecipe, after: list[Run]) -> Run:
        if recipe.stage == "prepare":
            return again(recipe, tmp_path / "again")
        return made.failed(tmp_path / "again")

    rows = reproduce(report, executor)
    last = rows[-1]
    assert (last["stage"], last["same"]) == ("sft", False) and "did not complete" in last["now"]
