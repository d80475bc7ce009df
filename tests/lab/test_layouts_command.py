"""`lab layouts` and `lab plan`: a table for people, JSON for scripts, a mistake named."""

from __future__ import annotations

import json

import pytest

from lab.__main__ import main


def test_the_table_names_the_winner_and_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "llama-3.1-8b", "--accelerator", "h100-sxm", "--nodes", "1", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "rule of thumb" in said and "dp_shard=8" in said


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "qwen3-0.6b", "--accelerator", "h100-sxm", "--nodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (
        main(
            ["plan", "--budget", "$2k", "--accelerator", "h100-sxm", "--nodes", "1", "--models", "qwen3-0.6b", "--json"]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)


def test_an_unknown_accelerator_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "qwen3-0.6b", "--accelerator", "h1000"]) == 2
    assert "h1000" in capsys.readouterr().err
