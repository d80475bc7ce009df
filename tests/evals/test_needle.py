"""The needle check: texts of the right length with one needle at the right depth, and a score that only finding gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lablib.evals import needle
from lablib.evals.evaluate import evaluate
from lablib.models.build import build_model
from lablib.models.folder import load_tokenizer
from lablib.runs import Recorder
from lablib.specs import Evaluate, LabError, ModelSpec, Needle

WANTED = Needle(lengths=(768, 1024), depths=(0.0, 0.5, 1.0), repeats=2, max_new_tokens=12)


@pytest.mark.parametrize("length", WANTED.lengths)
def test_a_text_has_the_length_and_one_needle_at_its_depth(tiny: Path, length: int) -> None:
    items = needle.hide(WANTED, length, load_tokenizer(tiny), seed=0)
    line = len(load_tokenizer(tiny)(needle.NOISE + "\n")["input_ids"])
    assert len(items) == WANTED.items == 6
    for item in items:
        assert length - line - 12 < len(item.ids) <= length - 12
        assert item.prompt.count(item.number) == 1
        hay = item.prompt[len(needle.INTRODUCTION) : item.prompt.index("\nWhat is the")].split("\n")
        place = next(i for i, text in enumerate(hay) if item.number in text)
        assert place / (len(hay) - 1) == pytest.approx(float(item.key.split("-")[0]), abs=0.51 / (len(hay) - 1))
    assert len({item.number for item in items}) == 6
    assert items == needle.hide(WANTED, length, load_tokenizer(tiny), seed=0)


def test_a_text_too_short_for_the_question_is_refused(tiny: Path) -> None:
    with pytest.raises(LabError, match=r"needle.lengths: 40 tokens"):
        needle.hide(WANTED, 40, load_tokenizer(tiny), seed=0)


def test_learned_positions_that_end_are_refused(tiny: Path) -> None:
    """GPT-2's; at its very end there is still an answer."""
    words = load_tokenizer(tiny)
    model = build_model(
        ModelSpec(family="gpt2", layers=1, hidden=16, heads=2, ffn=32, vocab=len(words), max_seq_len=768), 0
    )
    wanted = WANTED.replace(repeats=1, depths=(0.5,))
    (item,) = needle.hide(wanted, 768, words, seed=0)
    full = replace(item, ids=[*item.ids, *[1] * (756 - len(item.ids))])
    assert len(needle.find(model, words, [full], wanted)) == 1
    with pytest.raises(LabError, match="more than the model's 768 learned"):
        needle.find(model, words, needle.hide(wanted, 1024, words, seed=0), wanted)


def test_before_and_after_are_compared_item_by_item(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """A model that misses what lies at the beginning, and one that finds all; neither is a real one."""
    asked: list[int] = []

    def find(model: Any, tokenizer: Any, items: list[needle.Hidden], *rest: Any) -> list[str]:
        asked.append(len(items))
        is_after = len(asked) > len(WANTED.lengths)
        return [f" {item.number}." if is_after or not item.key.startswith("0-") else " 0." for item in items]

    monkeypatch.setattr(needle, "find", find)
    wanted = Evaluate(models={"before": str(tiny), "after": str(tiny)}, needle=WANTED)
    run = Recorder.create(tmp_path, wanted)
    evaluate(wanted, run)
    told = json.loads((run.path / "evals" / "scores.json").read_text())
    shares = {(row["model"], row["task"]): row["value"] for row in told["scores"]}
    assert shares == {(model, task): share for model, share in (("before", 2 / 3), ("after", 1.0)) for task in WANTED.tasks}  # fmt: skip
    assert [row["difference"] for row in told["comparisons"]] == pytest.approx([1 / 3, 1 / 3])
    evaluate(wanted, Recorder(run.path))
    assert asked == [6, 6, 6, 6], "what is scored is kept"


def test_a_model_that_knows_nothing_finds_nothing(tiny: Path, tmp_path: Path) -> None:
    wanted = Evaluate(models={"base": str(tiny)}, needle=WANTED.replace(lengths=(768,), repeats=1))
    run = Recorder.create(tmp_path, wanted)
    evaluate(wanted, run)
    [score] = json.loads((run.path / "evals" / "scores.json").read_text())["scores"]
    assert (score["task"], score["value"], score["items"]) == ("needle-768", 0.0, 3)
