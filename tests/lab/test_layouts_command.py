"""`lab layouts`: a table for people, every candidate as JSON for scripts, a mistake named."""

from __future__ import annotations

import json

import pytest

from lab.__main__ import main


def test_the_table_names_the_winner_and_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "llama-3.1-8b", "--gpus", "8", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "layouts of llama-3.1-8b on 8 × h100-sxm" in said and "Rule of thumb" in said


def test_json_holds_every_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "qwen3-0.6b", "--gpus", "8", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1)) and rows[0]["fits"]


def test_an_unknown_accelerator_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "qwen3-0.6b", "--accelerator", "h1000"]) == 2
    assert "h1000" in capsys.readouterr().err
