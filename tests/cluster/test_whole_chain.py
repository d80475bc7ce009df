"""The whole way as one chain of dependent Slurm jobs, submitted at once: corpus to report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import submit
from lab.tour.recipes import CANDIDATES, Chain, Settings, pretrain
from lablib.runs import Run, RunState
from lablib.specs import Profile

if TYPE_CHECKING:
    from cluster.dev import DevSlurm


@pytest.mark.timeout(900)
def test_seven_stages_wait_for_each_other_and_the_last_one_reports(
    slurm: DevSlurm, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))):
        (corpus / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    where = Profile.load("slurm-dev").replace(cpus_per_gpu=2, time=900.0)
    settings = Settings(tiny=True)
    chosen = pretrain(CANDIDATES[0], 12 * 4096, settings)
    runs: dict[str, Run] = {}
    last: Run | None = None
    steps = Chain(settings, chosen).steps()
    for label, make in steps:
        recipe = make(runs)
        if label == "data":
            recipe = recipe.replace(corpus=str(corpus), heldout=0.1, max_bytes=None)
        last = submit(recipe, where, after=last, root=tmp_path / "runs", report=label == steps[-1][0])
        runs[label] = last
    assert list(runs) == ["data", "pretrain", "sft", "preference", "grpo", "export", "evaluate"]
    assert runs["evaluate"].state in (RunState.WAITING, RunState.QUEUED), (
        "all were submitted before the first one ended"
    )
    for label, run in runs.items():
        assert run.wait() is RunState.COMPLETED, (label, run.state, run.failure)
    assert all(
        run.view is not None and run.view.state in ("COMPLETED", "COMPLETING", "RUNNING") for run in runs.values()
    )
    report = runs["evaluate"].path / "report" / "report.html"
    end = time.monotonic() + 500
    while not report.is_file() and time.monotonic() < end:  # the job writes it once the stage is done
        time.sleep(0.5)
    page = report.read_text(encoding="utf-8")
    assert all(run.id in page for run in runs.values())
