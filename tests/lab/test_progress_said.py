"""What the tour's table says of a stage that has measured nothing yet: how far it is, with a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.tour import progress
from lablib.explorers.show import progress as said
from lablib.runs import Recorder, Run, RunState
from lablib.specs import Prepare


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [(37.46, 100, "%", "37.46 %"), (0, 100, "%", "0 %"), (1200, 40_000, "documents", "1.2k of 40k documents")],
)
def test_a_stage_without_metrics_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: float, total: float, unit: str, text: str
) -> None:
    run = Recorder.create(tmp_path, Prepare(corpus="core"))
    with run.working():
        run.progress(done, total, unit)
        opened = Run(run.path)
        assert opened.state is RunState.RUNNING
        lines = progress._Lines({"data": opened})
        lines()
        assert text in capsys.readouterr().out


def test_nothing_is_said_of_what_is_not_known(tmp_path: Path) -> None:
    assert said({}) == "" and said({"done": 3, "total": 9}) == "3 of 9"
