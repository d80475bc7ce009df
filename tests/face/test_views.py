"""The monitor's view of a run, against what a real recorder wrote and a real estimate said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import made
import pytest

from lablib.explorers import Monitor, forecast
from lablib.explorers.planned import planned
from lablib.plan import estimate
from lablib.runs import Recorder, Run
from lablib.specs import Prepare, catalog


def headline(run: Run, label: str) -> tuple[str, str]:
    """Value and note of a headline."""
    found = {item.label: (item.value, item.note) for item in Monitor(run).view().headlines}
    return found[label]


def test_the_view_of_a_finished_run_holds_its_numbers(chain: list[Run]) -> None:
    """Loss beside its forecast, throughput as the median, no invented MFU."""
    run = chain[1]
    view = Monitor(run).view()
    assert view.status is not None and (view.status.glyph, view.status.word) == ("✓", "completed")
    assert view.progress == 1.0
    assert [figure.name for figure in view.charts][:2] == ["loss", "speed"]
    assert view.frames["loss"]["step"] == list(range(200))
    assert view.frames["loss"]["loss"][7] == pytest.approx(made.row(7)["loss"], rel=1e-5)
    assert headline(run, "Loss")[1].startswith("inside the forecast")
    assert headline(run, "MFU") == ("none", "no published peak for this device")
    rates = sorted(made.row(step)["tokens_per_second"] for step in range(200))
    assert headline(run, "Throughput")[0] == f"{rates[100] / 1e3:.3g}k tok/s"


def test_a_view_is_json_and_small(chain: list[Run]) -> None:
    """A snapshot of a screen goes over a socket every second."""
    text = json.dumps(Monitor(chain[1], points=400).view().words(), allow_nan=False)
    assert len(text) < 60_000


def test_each_look_reads_what_was_added(tmp_path: Path) -> None:
    """Two looks at a growing run; a step that a resumed run logs again counts once."""
    recorder = made.start(tmp_path, made.pretrain())
    monitor = Monitor(Run(recorder.path))
    assert monitor.view().status.word == "queued"  # type: ignore[union-attr]
    with recorder.working() as run:
        made.train(run, 10)
        assert monitor.view().frames["loss"]["step"] == list(range(10))
        made.train(run, 10, begin=5)
        view = monitor.view()
    assert view.frames["loss"]["step"] == list(range(15))
    assert view.status is not None and view.status.word == "running"
    assert view.progress is not None and 0 < view.progress <= 15 / 200  # progress is written twice a second at most


def test_what_a_run_did_to_heal_itself_is_said_and_marked(tmp_path: Path) -> None:
    """Each rewind is a mark on the loss and a sentence; steps without an update are counted in one sentence."""
    recorder = made.start(tmp_path, made.pretrain())
    with recorder.working() as run:
        made.train(run, 10)
        assert "rewinds" not in Monitor(Run(recorder.path)).view().frames
        run.event("not_finite", at_step=3)
        run.event("not_finite", at_step=4)
        run.event("rewound", at_step=9, to_step=2, why="loss", skip=[40, 80], rate=0.8)
        run.event("hardware", at_step=9, nodes=["node-7"])
    view = Monitor(Run(recorder.path)).view()
    assert view.frames["rewinds"] == {"step": [9], "to_step": [2]}
    assert "went back" in view.charts[0].caption
    said = " ".join(view.notes)
    assert "back to step 2, sequences 40 to 79 are skipped, at 80% of the learning rate" in said
    assert "no update: 2." in said and "node-7" in said


def test_leaving_the_forecast_is_said(tmp_path: Path) -> None:
    """A loss above the band is a warning in words, not only in colour."""
    with made.start(tmp_path, made.pretrain()).working() as run:
        for step in range(100):
            run.log(step, loss=2 * made.true_loss(step))
    found = next(item for item in Monitor(Run(run.path)).view().headlines if item.label == "Loss")
    assert found.note.startswith("above the forecast") and found.tone == "warn"


def test_between_the_forecasts_points_the_band_is_linear() -> None:
    """And outside them nothing was forecast."""
    band = forecast.band({"step": [0, 10], "low": [4, 2], "mid": [5, 3], "high": [6, 4]})
    assert forecast.interval_at(band, 5) == (3.0, 5.0)
    assert forecast.interval_at(band, 10) == (2, 4)
    assert forecast.interval_at(band, 11) is None
    assert forecast.verdict({}, 3, 1.0) == ""


def test_a_killed_run_is_shown_as_lost_with_advice(tmp_path: Path) -> None:
    """A real process, killed: no exit status was written, and the screen says what to do."""
    recorder = made.start(tmp_path, made.pretrain())
    code = (
        f"import sys, time; sys.path.insert(0, {str(Path(made.__file__).parent)!r}); import made\n"
        f"from lablib.runs import Recorder; from pathlib import Path\n"
        f"with Recorder(Path({str(recorder.path)!r})).working() as run:\n"
        "    made.train(run, 5); print('up', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    monitor = Monitor(Run(recorder.path))
    assert monitor.view().status.word == "running"  # type: ignore[union-attr]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    view = monitor.view()
    assert view.status is not None and (view.status.word, view.status.tone) == ("lost", "bad")
    assert "resumes from its last checkpoint" in view.notes[0]
    assert view.frames["loss"]["step"] == list(range(5))


def test_a_failure_is_shown_with_its_traceback(chain: list[Run]) -> None:
    """Word for word: renderers escape, views do not."""
    view = Monitor(chain[4]).view()
    assert view.status is not None and view.status.word == "failed"
    assert view.failure.startswith(made.HOSTILE) and "Traceback" in view.failure


def test_a_real_estimate_reads_back(tmp_path: Path) -> None:
    """What the planner registers is what the screen compares with."""
    recipe = made.pretrain()
    plan = estimate(recipe, made.MACHINE)
    run = Run.create(recipe, tmp_path, made.MACHINE, estimate=json.loads(plan.to_json()))
    told = planned(run)
    assert told.seconds is not None and told.seconds.mid == pytest.approx(plan.days.mid * 86400)
    assert told.gib is not None and told.gib.mid == plan.memory.peak_gib
    assert plan.dollars is not None and told.dollars is not None and told.dollars.high == plan.dollars.high
    assert told.rate is not None and told.rate.mid == plan.tokens_per_second_per_gpu


def test_a_run_without_a_plan_says_so(tmp_path: Path) -> None:
    """No estimate, no price, no metric: words instead of zeros."""
    with Recorder.create(tmp_path, Prepare(name="bare")).working() as run:
        pass
    assert headline(Run(run.path), "Money") == ("none", "planned none")
    assert headline(Run(run.path), "Memory")[1] == "planned none"
    assert not Monitor(Run(run.path)).view().charts
    assert catalog.accelerators  # the catalogue itself is read without a run
