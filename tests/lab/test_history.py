"""The error history: medians and bands of what was planned and measured, and a folder without runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.__main__ import main
from lablib.explorers.history import Outturn, by_stage, history


def outturn(actual: float) -> Outturn:
    return Outturn("run", "sft", "2026-11-24 00:00", "seconds", predicted=10.0, low=8.0, high=14.0, actual=actual)


def test_errors_are_over_what_was_measured_and_bands_are_counted() -> None:
    (errors,) = by_stage([outturn(8.0), outturn(10.0), outturn(20.0)])
    assert errors.median_ape == pytest.approx(25.0)  # 25 %, 0 % and 50 %
    assert (errors.runs, errors.inside, errors.banded) == (3, 2, 3)


def test_a_folder_without_runs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    assert history() == []
    assert main(["history"]) == 0 and "lab tour" in capsys.readouterr().out
    assert main(["history", "--json"]) == 0 and json.loads(capsys.readouterr().out) == {"runs": [], "by_stage": []}
