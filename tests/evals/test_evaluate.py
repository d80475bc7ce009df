"""The evaluation stage: same items for every model, honest tables, kept work, and bits that add up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_chat import COMMON, GCD, LEAP, layout, lines

from lablib.data.tasks import split_items
from lablib.evals import evaluate as stage
from lablib.evals import heldout
from lablib.evals.evaluate import evaluate
from lablib.evals.scores import pairs
from lablib.models.load import load_pair
from lablib.posttrain.sft import sft
from lablib.runs import Recorder
from lablib.specs import SFT, Evaluate, LabError, Ref

TEXTS = {
    "prose": ["A leap year has 366 days, 2024 was one.", "Déjà vu: naïve café?"],
    "code": ["def f(x):\n    return x + 1\n", "1 2 3"],
    "empty": [],
}


@pytest.fixture(scope="module")
def tuned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = SFT(model=str(tiny), data=LEAP, steps=25, batch_size=8, learning_rate=3e-3, **layout(8), **COMMON)
    run = Recorder.create(tmp_path_factory.mktemp("tuned"), wanted)
    sft(wanted, run)
    return run.path / "model"


@pytest.fixture
def recipe(tiny: Path, tuned: Path) -> Evaluate:
    return Evaluate(models={"base": str(tiny), "sft": str(tuned), "same": str(tuned)}, tasks=(LEAP,), max_new_tokens=4)


def read(run: Recorder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "evals" / "scores.json").read_text())
    return found


def test_scores_items_and_verdicts_agree(recipe: Evaluate, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, recipe)
    evaluate(recipe, run)
    told, rows = read(run), lines(run.path / "evals" / "items.jsonl")
    assert {row["key"] for row in rows if row["model"] == "base"} == {item.key for item in split_items(LEAP, "test")}
    for score in told["scores"]:
        mine = [row["score"] for row in rows if row["model"] == score["model"]]
        assert score["value"] == sum(mine) / len(mine) and score["items"] == 60 and score["unit"] == "share"
        assert score["low"] <= score["value"] <= score["high"]
    verdicts = {(row["model"], row["baseline"]): row for row in told["comparisons"]}
    assert set(verdicts) == {("sft", "base"), ("same", "base"), ("same", "sft")}
    assert verdicts["sft", "base"]["verdict"] == "improvement"
    assert (verdicts["same", "sft"]["verdict"], verdicts["same", "sft"]["difference"]) == ("no result", 0)
    constant = told["references"][0]["value"]
    assert constant == sum(item.answer == "No" for item in split_items(LEAP, "test")) / 60
    assert run.path.joinpath("artefacts.json").is_file()


def test_a_resumed_evaluation_keeps_what_it_has(
    recipe: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Recorder.create(tmp_path, recipe)
    evaluate(recipe, whole)
    kept = lines(whole.path / "evals" / "items.jsonl")
    half = Recorder.create(tmp_path, recipe)
    part = [row for row in kept if row["model"] == "base"] + [row for row in kept if row["model"] == "sft"][:30]
    half.folder("evals").joinpath("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part) + '{"torn')
    asked = []
    honest = stage._answer
    monkeypatch.setattr(stage, "_answer", lambda *args: asked.append(args[2]) or honest(*args))
    evaluate(recipe, half)
    assert asked == ["sft", "same"]
    assert read(half) == read(whole)


def test_a_stop_request_ends_between_models(recipe: Evaluate, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, recipe)
    run._stop.set()
    evaluate(recipe, run)
    assert not (run.path / "evals" / "scores.json").exists()


def test_a_stop_request_ends_within_a_task_after_the_batch_and_what_is_scored_counts_as_progress(
    recipe: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe.replace(batch_size=8)
    run = Recorder.create(tmp_path, wanted)
    real, batches = stage.generate, []

    def stopped_in_the_second_model(*args: Any) -> list[str]:
        heed = args[5]

        def report(done: int) -> None:
            batches.append(done)
            if len(batches) == 10:  # the first model's 60 items are 8 batches
                run.request_stop("limit")
            heed(done)

        return real(*args[:5], report)

    monkeypatch.setattr(stage, "generate", stopped_in_the_second_model)
    evaluate(wanted, run)
    assert len(batches) == 10 and not (run.path / "evals" / "scores.json").exists()
    kept = [row["at_step"] for row in lines(run.path / "events.jsonl") if row["kind"] == "checkpoint"]
    assert kept == [60] and {row["model"] for row in lines(run.path / "evals" / "items.jsonl")} == {"base"}
    again = Recorder(run.path)
    evaluate(wanted, again)
    kept = [row["at_step"] for row in lines(run.path / "events.jsonl") if row["kind"] == "checkpoint"]
    assert kept == [60, 120, 180] and (run.path / "evals" / "scores.json").exists()


@pytest.mark.parametrize(
    ("baseline", "expected"), [("a", {("b", "a"), ("c", "a"), ("c", "b")}), ("b", {("a", "b"), ("c", "b")})]
)
def test_each_model_is_compared_with_the_baseline_and_the_one_before(
    baseline: str, expected: set[tuple[str, str]]
) -> None:
    assert {pair[:2] for pair in pairs(["a", "b", "c"], baseline)} == expected


def write_data(run: Path, tiny: Path) -> None:
    """A Prepare run's artefacts, written by hand."""
    _, tokenizer = load_pair(tiny)
    (run / "data" / "shards").mkdir(parents=True)
    tokenizer.save_pretrained(run / "tokenizer")
    shards = []
    for domain, texts in TEXTS.items():
        ids = [tokenizer(text)["input_ids"] + [0] for text in texts]
        stem = run / "data" / "shards" / f"{domain}.heldout"
        np.array([token for row in ids for token in row], dtype="<u2").tofile(f"{stem}.bin")
        np.save(f"{stem}.idx.npy", np.cumsum([len(row) for row in ids]).astype(np.int64))
        shards.append({"domain": domain, "split": "heldout"})
    (run / "data" / "manifest.json").write_text(json.dumps({"tokenizer": {"vocab": 320}, "shards": shards}))


def test_pieces_are_the_documents_of_all_domains_in_turn(tiny: Path, tmp_path: Path) -> None:
    write_data(tmp_path, tiny)
    pieces = heldout.read_pieces(tmp_path / "data", tmp_path / "tokenizer", budget=10_000)
    assert [piece.domain for piece in pieces] == ["code", "prose", "code", "prose"]
    assert {piece.text for piece in pieces} == {text for texts in TEXTS.values() for text in texts}
    assert len(heldout.read_pieces(tmp_path / "data", tmp_path / "tokenizer", budget=5)) == 2


def test_bits_are_summed_by_hand_and_bytes_are_those_they_describe(tiny: Path) -> None:
    model, tokenizer = load_pair(tiny)
    pieces = [heldout.Piece("d", text) for texts in TEXTS.values() for text in texts]
    found, sizes = heldout.bits(model, tokenizer, pieces, batch_size=3)
    for piece, total, size in zip(pieces, found, sizes, strict=True):
        ids = tokenizer(piece.text)["input_ids"]
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand = -sum(float(logp[i, token]) for i, token in enumerate(ids[1:])) / math.log(2)
        assert total == pytest.approx(by_hand, rel=1e-4)
        assert size == sum(len(token) for token in tokenizer.convert_ids_to_tokens(ids[1:]))  # a character a byte


def test_held_out_text_enters_the_tables_and_samples(recipe: Evaluate, tiny: Path, tmp_path: Path) -> None:
    prepared = Recorder.create(tmp_path, recipe)
    write_data(prepared.path, tiny)
    for name in ("data", "tokenizer"):
        prepared.artefact(name, prepared.path / name)
    wanted = recipe.replace(tasks=(), data=Ref(run=prepared.path.name, artefact="data", science="x"), samples=1)
    run = Recorder.create(tmp_path, wanted)
    evaluate(wanted, run)
    told = read(run)
    assert {row["metric"] for row in told["scores"]} == {"bits per byte"}
    [same] = [row for row in told["comparisons"] if row["baseline"] == "sft"]
    assert (same["difference"], same["verdict"]) == (0, "no result")
    values = {row["model"]: row["value"] for row in told["scores"]}
    [change] = [row for row in told["comparisons"] if (row["model"], row["baseline"]) == ("sft", "base")]
    assert change["difference"] == pytest.approx(values["base"] - values["sft"])
    shown = [row for row in lines(run.path / "evals" / "items.jsonl") if row["answer"]]
    assert {row["model"] for row in shown} <= {"base", "sft", "same"} and len(shown) <= 3


def test_a_task_that_asks_for_too_much_fails_before_a_model_is_loaded(recipe: Evaluate, tmp_path: Path) -> None:
    wanted = recipe.replace(tasks=(GCD.replace(params={"max_value": 4}),))
    with pytest.raises(LabError, match="different test prompts"):
        evaluate(wanted, Recorder.create(tmp_path, wanted))
