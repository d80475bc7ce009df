"""The whole way at its smallest: interrupted with Ctrl-C, continued, and then reused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lablib.runs import Run, RunState

STAGES = ("data", "pretrain", "sft", "preference", "grpo", "export", "evaluate")


def start(root: Path) -> subprocess.Popen[str]:
    # A shell gives its background jobs an ignored SIGINT, which a child would inherit: there is always a Ctrl-C here.
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-m",
        "lab",
        "tour",
        "--tiny",
        "--root",
        str(root),
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ledger(root: Path) -> dict[str, Run]:
    file = root / "tour.json"
    return {label: Run(root / run) for label, run in json.loads(file.read_text()).items()} if file.exists() else {}


def until_training(root: Path) -> None:
    end = time.monotonic() + 500
    while not (run := ledger(root).get("pretrain")) or len(run.rows()) < 2:
        assert time.monotonic() < end, "pretraining did not begin"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, outcome of the interrupted call, outcome of the second call, outcome of the third)."""
    folder = tmp_path_factory.mktemp("tour")
    shared = os.environ.get("LAB_HOME")  # the downloaded packages may be shared; the machine's measurement is fresh
    os.environ["LAB_HOME"] = shared or str(Path.home() / ".cache" / "llm-lab")
    root = folder / "runs"
    first = start(root)
    until_training(root)
    os.killpg(first.pid, signal.SIGINT)
    interrupted = (
        first.wait(300),
        first.stderr.read() if first.stderr else "",
        {k: r.state for k, r in ledger(root).items()},
    )
    outcomes = [json.loads(start(root).communicate(timeout=600)[0]) for _ in range(2)]
    return root, interrupted, *outcomes


def test_ctrl_c_saves_and_says_so(tour: Any) -> None:
    code, message, states = tour[1]
    assert code == 130 and "Traceback" not in message
    assert states["data"] is RunState.COMPLETED and states["pretrain"] is RunState.STOPPED
    assert all(state is RunState.STOPPED for label, state in states.items() if label != "data")


def test_the_same_command_continues_where_it_stopped(tour: Any) -> None:
    root, _, outcome, _ = tour
    assert outcome["completed"] and tuple(outcome["stages"]) == STAGES
    pretrain = Run(root / outcome["stages"]["pretrain"]["run"])
    assert "resumed" in [event["kind"] for event in pretrain.events()]
    assert [row["step"] for row in pretrain.rows()] == list(range(1, pretrain.recipe.steps + 1))


def test_a_third_call_makes_nothing_again(tour: Any) -> None:
    _, _, second, third = tour
    assert {k: v["run"] for k, v in third["stages"].items()} == {k: v["run"] for k, v in second["stages"].items()}


def test_every_stage_has_a_prediction_and_an_outcome(tour: Any) -> None:
    for row in tour[2]["comparison"]:
        assert row["seconds_predicted"] > 0 and row["seconds"] > 0
        assert row["gib_predicted"] > 0 and row["gib"] > 0
    pretrain = next(row for row in tour[2]["comparison"] if row["stage"] == "pretrain")
    assert pretrain["loss_predicted"] > 0 and pretrain["loss"] > 0


def test_nothing_is_called_an_improvement_unless_its_interval_says_so(tour: Any) -> None:
    comparisons = tour[2]["evaluation"]["evaluate"]["comparisons"]
    assert comparisons
    for row in comparisons:
        expected = "improvement" if row["low"] > 0 else "regression" if row["high"] < 0 else "no result"
        assert row["verdict"] == expected


def test_the_report_is_written_and_whole(tour: Any) -> None:
    from lablib.report import verify

    verify(Path(tour[2]["report"]))
