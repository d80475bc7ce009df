"""`lab layouts` and `lab plan`: a table for people, JSON for scripts, a mistake named."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_the_fastest_is_laid_out_on_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["layouts", "qwen3-0.6b", "--accelerator", "h100-sxm", "--nodes", "16", "--check", "--json"]
    assert main(wanted) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["layout"]["dp_shard"] > 1 and all(abs(stage["excess"]) < 0.01 for stage in said["stages"])


def test_an_unknown_accelerator_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "qwen3-0.6b", "--accelerator", "h1000"]) == 2
    assert "h1000" in capsys.readouterr().err


def test_a_profile_is_the_cluster_that_it_submits_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_PROFILES", str(tmp_path))
    words = ['name = "ours"', 'scheduler = "slurm"', 'accelerator = "a100-sxm"', "nodes = 1", "gpus_per_node = 4", "price_per_gpu_hour = 1.5"]  # fmt: skip
    (tmp_path / "ours.toml").write_text("\n".join(words))
    saved = str(tmp_path / "r.toml")
    assert main(["layouts", "qwen3-0.6b", "--profile", "ours", "--tokens", "1B", "--save", saved]) == 0
    said = capsys.readouterr().out
    assert "4 × a100-sxm" in said and f"lab estimate {saved} --profile ours" in said
    assert main(["estimate", saved, "--profile", "ours", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["accelerator"], plan["gpus"]) == ("a100-sxm", 4)
    assert plan["dollars"]["mid"] == pytest.approx(1.5 * plan["gpu_hours"]["mid"])
    assert main(["estimate", saved, "--profile", "ours", "--gpus", "8"]) == 2
    assert "leave out" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "word"), [("costs", "QLoRA"), ("kpis", "Chinchilla"), ("budgets", "405B"), ("rules", "ZeRO-1")])  # fmt: skip
def test_rules_of_thumb_are_reckoned(what: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thumb", what]) == 0
    assert word in capsys.readouterr().out
    assert main(["thumb", what, "--json"]) == 0
    assert any(word in str(row) for row in json.loads(capsys.readouterr().out))


def test_longer_sequences_and_other_grids_have_their_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = str(tmp_path / "r.toml")
    where = ["--accelerator", "h100-sxm"]
    assert main(["layouts", "llama-3-8b", *where, "--tokens", "1B", "--save", saved]) == 0
    capsys.readouterr()
    assert main(["estimate", saved, *where, "--contexts", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    hours = [one["estimate"]["gpu_hours"]["mid"] for one in made]
    assert [one["seq_len"] for one in made] == [8192, 32768, 131072] and hours == sorted(hours)
    assert main(["estimate", saved, *where, "--grids"]) == 0
    said = capsys.readouterr().out
    assert said.index("norway") < said.index("india")
