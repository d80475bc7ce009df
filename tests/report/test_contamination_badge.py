"""The badge beside a score: clean only where these very items were searched for and what held them is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lablib.data.contamination import Coverage, Report
from lablib.report.contamination import badge, listed, read, status
from lablib.runs import Recorder, Run
from lablib.specs import Decontaminate, Prepare, Task

TASK = Task(name="siblings", generator="aiw", test=10)


def stage(
    tmp_path: Path, coverage: list[Coverage] | None, removed: bool = True, task: Task | str = TASK
) -> dict[str, Any]:
    """What a record says of a data stage."""
    run = Recorder.create(tmp_path, Prepare(decontaminate=Decontaminate(benchmarks=(task,))))
    if coverage is not None:
        Report("coverage", 5, 100, coverage, [], removed).save(run.folder("contamination"))
    found = read(Run(run.path))
    return {"data": {"shards": []}, "contamination": found, "recipe": run.recipe.model_dump(mode="json")}


FOUND = Coverage("siblings", source="reasoning-gym aiw", items=10, documents=2)


@pytest.mark.parametrize(
    ("coverage", "removed", "word"),
    [
        ([FOUND], True, "clean"),
        ([FOUND], False, "contaminated"),
        ([Coverage("siblings", source="x", items=10)], False, "clean"),
        ([Coverage("siblings", reason="its file is not here")], True, "not indexed"),
        ([Coverage("other", source="x", items=10)], True, "not indexed"),
        (None, True, "not indexed"),
    ],
)
def test_a_score_is_called_clean_only_where_that_is_known(
    tmp_path: Path, coverage: list[Coverage] | None, removed: bool, word: str
) -> None:
    one = stage(tmp_path, coverage, removed)
    assert status(TASK.model_dump(mode="json"), [one]) == word
    assert word in badge(word)


def test_other_items_under_the_same_name_are_not_indexed(tmp_path: Path) -> None:
    one = stage(tmp_path, [FOUND])
    assert status(TASK.replace(seed=1).model_dump(mode="json"), [one]) == "not indexed"
    assert status(TASK.replace(fewshot=2).model_dump(mode="json"), [one]) == "clean"


def test_all_data_of_a_chain_counts(tmp_path: Path) -> None:
    """One stage that did not search leaves it open, one that left items in spoils it; without data nothing is known."""
    clean, unknown = stage(tmp_path / "a", [FOUND]), stage(tmp_path / "b", None)
    spoiled, task = stage(tmp_path / "c", [FOUND], removed=False), TASK.model_dump(mode="json")
    evaluation: dict[str, Any] = {"data": None, "contamination": None, "recipe": {}}
    assert status(task, [clean, evaluation]) == "clean"
    assert status(task, [clean, unknown]) == "not indexed"
    assert status(task, [clean, spoiled, unknown]) == "contaminated"
    assert status(task, [evaluation]) == "not indexed"


def test_a_public_benchmark_is_known_by_its_name_and_listed_present_or_missing(tmp_path: Path) -> None:
    covered = [
        Coverage("gsm8k", source="pypi:x", items=1319),
        Coverage("mmlu", reason="put mmlu.jsonl into the folder"),
    ]
    one = stage(tmp_path, covered, task="gsm8k")
    assert status({"name": "gsm8k"}, [one]) == "clean" and status({"name": "mmlu"}, [one]) == "not indexed"
    page = "".join(listed(one))
    assert "present" in page and "missing" in page and "1,319" in page and "put mmlu.jsonl" in page
    assert "was not searched" in "".join(listed(stage(tmp_path / "d", None)))
