"""DPO against its closed forms, and pairs whose rejected side is really wrong."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat import COMMON, GCD, layout, lines, train_rows

from lablib.data.tasks import Verifier, split_items
from lablib.models.chat import END, encode_prompt, prepare_chat
from lablib.models.load import load_pair
from lablib.posttrain import preference as stage
from lablib.posttrain.preference import Pair, near_miss, preference
from lablib.runs import Recorder
from lablib.specs import LabError, LoRA, Preference


def recipe(model: Path, **changes: Any) -> Preference:
    return Preference(
        **{
            "model": str(model),
            "data": GCD,
            "pairs": 16,
            "steps": 2,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "warmup": 0.0,
            **layout(8),
            **COMMON,
            **changes,
        }
    )


def run_of(wanted: Preference, root: Path) -> Recorder:
    run = Recorder.create(root, wanted)
    preference(wanted, run)
    return run


@pytest.mark.parametrize(("loss", "start"), [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 1 / (4 * 0.1**2))])
def test_the_first_loss_is_that_of_equal_policies(tiny: Path, tmp_path: Path, loss: str, start: float) -> None:
    """The policy starts as its own reference: margin 0, so ln 2, 1 and 1/(4 beta^2)."""
    run = run_of(recipe(tiny, loss=loss), tmp_path)
    first, second = train_rows(run.path)
    assert first["loss"] == pytest.approx(start, rel=1e-6)
    assert (first["margin"], first["reward_chosen"], first["reward_rejected"]) == (0, 0, 0)
    assert second["loss"] < start and second["margin"] > 0


def test_an_adapter_starts_at_the_same_loss(tiny: Path, tmp_path: Path) -> None:
    run = run_of(recipe(tiny, lora=LoRA(rank=4, alpha=8)), tmp_path)
    assert train_rows(run.path)[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_log_probabilities_are_sums_over_the_answer_and_its_end(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "chosen": "Yes", "rejected": f"No {i}"} for i in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_of(recipe(tiny, data=str(file), steps=1), tmp_path)
    model, tokenizer = load_pair(tiny)
    prepare_chat(tokenizer)
    model.requires_grad_(False)

    def logp(row: dict[str, str], side: str) -> float:
        prompt = encode_prompt(tokenizer, row["prompt"])
        answer = tokenizer(row[side] + END, add_special_tokens=False)["input_ids"]
        scores = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(float(scores[len(prompt) + i - 1, token]) for i, token in enumerate(answer))

    found = train_rows(run.path)[0]
    for side in ("chosen", "rejected"):
        assert found[f"logp_{side}"] == pytest.approx(sum(logp(row, side) for row in rows) / len(rows), rel=1e-4)


def test_rejected_answers_are_the_models_own_and_wrong(tiny: Path, tmp_path: Path) -> None:
    run = run_of(recipe(tiny), tmp_path)
    pairs = [Pair(**row) for row in lines(run.path / "pairs.jsonl")]
    counted = json.loads((run.path / "manifest.json").read_text())["notes"]["pairs"]
    assert counted == {
        "sampled": sum(pair.is_sampled for pair in pairs),
        "near_miss": sum(not pair.is_sampled for pair in pairs),
    }
    assert counted["sampled"] > 8
    items = split_items(GCD, "train")[:16]
    with Verifier(GCD) as verifier:
        assert [verdict.score for verdict in verifier.score(items, [pair.chosen for pair in pairs])] == [1.0] * 16
        assert [verdict.score for verdict in verifier.score(items, [pair.rejected for pair in pairs])] == [0.0] * 16


def test_a_resumed_run_keeps_its_pairs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(recipe(tiny), tmp_path)
    monkeypatch.setattr(stage, "sample_pairs", lambda *_: pytest.fail("sampled again"))
    again = Recorder(run.path)
    assert len(stage.make_pairs(again.recipe, again, None, None)) == 16  # type: ignore[arg-type]


@given(answer=st.one_of(st.integers(-50, 50).map(str), st.sampled_from(["Yes", "No"])), seed=st.integers())
def test_a_near_miss_is_never_the_answer(answer: str, seed: int) -> None:
    assert near_miss(answer, ["Yes", "No", "3"], random.Random(seed)) != answer
    assert near_miss("Yes", ["Yes"], random.Random(seed)) != "Yes"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b"}, "must be texts"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "must differ"),
        ({"prompt": "a<|im_end|>", "chosen": "b", "rejected": "c"}, "special token"),
    ],
)
def test_wrong_pairs_are_named(tiny: Path, tmp_path: Path, row: dict[str, str], words: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(LabError, match=words):
        run_of(recipe(tiny, data=str(file)), tmp_path)


def test_more_pairs_than_prompts_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="raise train or lower pairs"):
        run_of(recipe(tiny, pairs=1000), tmp_path)
