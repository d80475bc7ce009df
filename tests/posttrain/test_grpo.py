"""GRPO: the advantages it says it uses, no signal from groups that agree, and a reward that moves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import COMMON, GCD, LEAP, layout, lines, train_rows
from transformers import AutoModelForCausalLM

from lablib.data.tasks import Verdict, Verifier
from lablib.posttrain import grpo as stage
from lablib.posttrain.grpo import CONVENTIONS, grpo
from lablib.posttrain.sft import sft
from lablib.runs import Recorder
from lablib.specs import GRPO, SFT, LabError


def recipe(model: Path, **changes: Any) -> GRPO:
    settings = {
        "model": str(model),
        "task": LEAP,
        "steps": 16,
        "batch_size": 32,
        "prompts_per_step": 4,
        "group_size": 8,
    }
    return GRPO(**{**settings, "max_new_tokens": 6, "learning_rate": 4e-3, **layout(32), **COMMON, **changes})


@pytest.fixture(scope="module")
def warm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt to say Yes or No, but not when: right often enough to be rewarded."""
    wanted = SFT(model=str(tiny), data=LEAP, steps=45, batch_size=8, learning_rate=3e-3, **layout(8), **COMMON)
    run = Recorder.create(tmp_path_factory.mktemp("warm"), wanted)
    sft(wanted, run)
    return run.path / "model"


@pytest.fixture(scope="module")
def trained(warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = recipe(warm)
    run = Recorder.create(tmp_path_factory.mktemp("grpo"), wanted)
    grpo(wanted, run)
    return run.path


def test_the_reward_rises(trained: Path) -> None:
    rewards = [row["reward"] for row in train_rows(trained)]
    assert len(rewards) == 16 and sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.1
    assert 0.1 < rewards[0] < 0.9


def test_rollouts_hold_every_group_with_the_stated_advantages(trained: Path) -> None:
    """Advantage = (r - mean) / (std with ddof 1 + 1e-4); groups that agree have none."""
    rows = lines(trained / "rollouts.jsonl")
    assert len(rows) == 16 * 4 and {row["step"] for row in rows} == set(range(1, 17))
    kinds = set()
    for row in rows:
        rewards = [done["score"] for done in row["completions"]]
        mean, spread = statistics.mean(rewards), statistics.stdev(rewards)
        expected = [(reward - mean) / (spread + 1e-4) for reward in rewards]
        assert [done["advantage"] for done in row["completions"]] == pytest.approx(expected, abs=1e-4)
        assert all(done["score"] == float(done["answer"] == row["right"]) for done in row["completions"])
        kinds.add(spread == 0)
    assert kinds == {True, False}


def test_logged_reward_and_dead_groups_are_those_of_the_rollouts(trained: Path) -> None:
    for logged in train_rows(trained):
        groups = [row for row in lines(trained / "rollouts.jsonl") if row["step"] == logged["step"]]
        rewards = [[done["score"] for done in row["completions"]] for row in groups]
        assert logged["reward"] == pytest.approx(statistics.mean(map(statistics.mean, rewards)))
        assert logged["groups_without_signal"] == statistics.mean(len(set(group)) == 1 for group in rewards)
        assert logged["verifier_errors"] == 0


def test_conventions_are_recorded(trained: Path) -> None:
    noted = json.loads((trained / "manifest.json").read_text())["notes"]["grpo"]
    assert noted == {**CONVENTIONS, "on_policy": True}


def test_no_reward_moves_nothing_and_is_said(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is never right: the loss is 0, the weights stay, and the run says why."""
    monkeypatch.setattr(stage, "PATIENCE", 2)
    wanted = recipe(tiny, task=GCD, steps=2)
    run = Recorder.create(tmp_path, wanted)
    monkeypatch.setattr(Verifier, "score", _never_right(Verifier.score))
    grpo(wanted, run)
    assert all(row["grad_norm"] == 0 and row["groups_without_signal"] == 1 for row in train_rows(run.path))
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny, run.path / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(
        row["kind"] == "warning" and "warm up with SFT" in row["text"] for row in lines(run.path / "events.jsonl")
    )


def _never_right(score: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Verifier, items: list[Any], texts: list[Any]) -> Any:
        own = [item.answer for item in items] == list(texts)
        return score(self, items, texts if own else ["wrong"] * len(texts))

    return wrong


def test_a_broken_verifier_gives_no_advantage_and_is_counted(
    warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unscored completion is neither rewarded nor punished, nor part of the group's mean."""
    honest = Verifier.score

    def first_of_each_group_fails(self: Verifier, items: list[Any], texts: list[Any]) -> list[Verdict]:
        found = honest(self, items, texts)
        broken = Verdict(None, "", "RuntimeError: no signals here")
        return [broken if i % 8 == 0 else verdict for i, verdict in enumerate(found)] if len(found) == 32 else found

    monkeypatch.setattr(Verifier, "score", first_of_each_group_fails)
    wanted = recipe(warm, steps=1)
    run = Recorder.create(tmp_path, wanted)
    grpo(wanted, run)
    for row in lines(run.path / "rollouts.jsonl"):
        first, *others = row["completions"]
        rewards = [done["score"] for done in others]
        spread = statistics.stdev(rewards) + 1e-4
        expected = [(reward - statistics.mean(rewards)) / spread for reward in rewards]
        assert (first["score"], first["advantage"]) == (None, 0.0)
        assert [done["advantage"] for done in others] == pytest.approx(expected, abs=1e-3)
    assert train_rows(run.path)[0]["verifier_errors"] == 1 / 8


def test_worked_examples_give_plain_prompts(warm: Path, tmp_path: Path) -> None:
    wanted = recipe(warm, task=GCD.replace(fewshot=1, train=16), steps=1, seq_len=400)
    run = Recorder.create(tmp_path, wanted)
    grpo(wanted, run)
    row = lines(run.path / "rollouts.jsonl")[0]
    assert row["prompt"].startswith("Question:") and row["prompt"].endswith("Answer:")


def test_several_updates_on_one_sampling_are_said_to_be_off_policy(warm: Path, tmp_path: Path) -> None:
    wanted = recipe(warm, steps=2, batch_size=16, **layout(16))
    run = Recorder.create(tmp_path, wanted)
    grpo(wanted, run)
    assert json.loads((run.path / "manifest.json").read_text())["notes"]["grpo"]["on_policy"] is False
    assert len(lines(run.path / "rollouts.jsonl")) == 4  # one sampling of 32 for two updates of 16


def test_a_batch_that_does_not_divide_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not divide"):
        wanted = recipe(tiny, batch_size=24, **layout(8))
        grpo(wanted, Recorder.create(tmp_path, wanted))


def test_the_prompt_and_completion_must_fit(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="raise seq_len"):
        wanted = recipe(tiny, seq_len=12)
        grpo(wanted, Recorder.create(tmp_path, wanted))
