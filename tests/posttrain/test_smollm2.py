"""The real chat model: fetched, converted, and solving few-shot tasks about as often as it was measured to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lablib.evals.evaluate import evaluate
from lablib.models.chat import encode_chat
from lablib.models.load import load_pair
from lablib.models.pretrained import resolve
from lablib.runs import Recorder
from lablib.specs import Evaluate, LabError, ModelSpec, Task

SUMS = Task(
    name="sums",
    generator="chain_sum",
    params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    fewshot=6,
    train=40,
    test=24,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_adds_in_few_shot_form(tmp_path: Path) -> None:
    folder = resolve("smollm2-135m-instruct")
    assert {"model.safetensors", "tokenizer.json", "config.json", "LICENSE"} <= {file.name for file in folder.iterdir()}
    assert ModelSpec.from_hf(folder).layers == 30
    model, tokenizer = load_pair(folder)
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    ids, mask = encode_chat(
        tokenizer, [{"role": "user", "content": "4+6?"}, {"role": "assistant", "content": "4+6 is 10."}]
    )
    assert "named SmolLM" in tokenizer.decode(ids) and sum(mask) == 9
    wanted = Evaluate(models={"smollm2": "smollm2-135m-instruct"}, tasks=(SUMS,), max_new_tokens=5, batch_size=24)
    run = Recorder.create(tmp_path, wanted)
    evaluate(wanted, run)
    [score] = json.loads((run.path / "evals" / "scores.json").read_text())["scores"]
    assert 0.3 < score["value"] < 0.95


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(LabError, match="smollm2-135m-instruct"):
        resolve("gpt-5")
