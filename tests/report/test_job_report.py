"""The report that a job writes of itself at its end, wherever its code came from."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lablib.report import export_chain, load
from lablib.runs import Recorder, Run
from lablib.runs.orders import Order
from lablib.specs import Prepare, write_atomic


def completed(root: Path, *after: str) -> Run:
    """A run as a login node submits it: its code is a snapshot without a history."""
    run = Run.create(Prepare(), root, order=json.loads(Order(after=after).to_json()), code={"snapshot": "5e1f"})
    with Recorder(run.path).working():
        pass
    return run


def test_code_without_a_commit_is_told_by_its_snapshot(tmp_path: Path) -> None:
    run = completed(tmp_path)
    assert run.manifest["code"] == {"snapshot": "5e1f"}
    page = export_chain(run)
    assert page == run.path / "report" / "report.html", run.events()
    assert "snapshot 5e1f, not a git checkout" in page.read_text()


def test_the_page_is_about_the_whole_chain_in_order(tmp_path: Path) -> None:
    first = completed(tmp_path)
    second = completed(tmp_path, first.id)
    third = completed(tmp_path, first.id, second.id)
    page = export_chain(third)
    assert page is not None
    assert [run["id"] for run in load(page)["runs"]] == [first.id, second.id, third.id]


def test_a_report_that_fails_is_an_event_and_leaves_the_run_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = completed(tmp_path)
    write_atomic(run.path / "estimate.json", "{}")
    assert export_chain(run) is None
    (told,) = [event for event in run.events() if event["kind"] == "report failed"]
    assert "estimate.json" in told["reason"] and "Traceback" in told["traceback"]
    assert str(run.state) == "completed" and run.failure == ""

    def breaks(*_: Any) -> str:
        raise KeyError("commit")

    monkeypatch.setattr(import_module("lablib.report.export"), "render", breaks)
    write_atomic(run.path / "estimate.json", json.dumps({"days": {"low": 1, "mid": 1, "high": 1}}))
    assert export_chain(run) is None and run.events()[-1]["reason"] == "KeyError: 'commit'"
