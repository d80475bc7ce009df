"""`lab data plan`: what preparing so many tokens takes, as a table, as JSON and by a profile of CPUs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.__main__ import main
from lablib.plan.preparing import plan_data


def test_tokens_are_priced_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "plan", "--tokens", "15T", "--cores", "5000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(plan_data(15e12, 5000).to_json())
    assert main(["data", "plan", "--tokens", "2T", "--ready", "--price", "0.03"]) == 0
    said = capsys.readouterr().out
    assert "near-duplicates" in said and "core-hours" in said and "$" in said
    assert main(["data", "plan", "--tokens", "2T", "--also", "html, repeated-passages"]) == 0
    said = capsys.readouterr().out
    assert "html" in said and "repeated-passages" in said and "WARC" in said
    assert main(["data", "plan", "--tokens", "2T", "--explain"]) == 0
    assert "catalogue/funnels.csv" in capsys.readouterr().out


def test_a_profile_gives_cores_and_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_PROFILES", str(tmp_path))
    (tmp_path / "cpus.toml").write_text(
        'name = "cpus"\nscheduler = "slurm"\nnodes = 10\ngpus_per_node = 64\nprice_per_gpu_hour = 0.04\n'
    )
    assert main(["data", "plan", "--tokens", "1T", "--profile", "cpus", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(plan_data(1e12, 640, 0.04).to_json())
    assert main(["data", "plan"]) == 2
    assert "--tokens 15T" in capsys.readouterr().err
