"""Embedding surgery keeps what a model knows, and a model with another tokenizer than its own is not loaded."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from lablib.data import tokenizer
from lablib.models.build import build_model
from lablib.models.folder import save_model
from lablib.models.load import load_pair, save_pair
from lablib.models.vocabulary import change_vocabulary
from lablib.specs import LabError, ModelSpec, TokenizerSpec

TEXT = inspect.getsource(textwrap) + "naïve 日本\n" * 9
OTHER = "import numpy as np\nfor river in range(10):\n    print(river, the_village)\n" * 9


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An old tokenizer, one that continues its merges, and one of another kind on other text."""
    base, long = tmp_path_factory.mktemp("tokenizers"), tokenizer.train([TEXT], 420)
    made = {
        "old": tokenizer.truncated(long, 320),
        "grown": long,
        "other": tokenizer.train([OTHER], 400, TokenizerSpec(kind="unigram", split="llama3")),
    }
    for name, one in made.items():
        tokenizer.save(one, base / name)
    return {name: base / name for name in made}


def tiny(tied: bool) -> Any:
    spec = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=320, tied_embeddings=tied)
    return build_model(spec, 0).eval()


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["grown", "other"])
def test_the_logits_of_tokens_that_stay_are_equal(folders: dict[str, Path], tied: bool, name: str) -> None:
    """A token is the same where its bytes are, whatever its new id."""
    model, new = tiny(tied), {b: i for i, b in tokenizer.spellings(folders[name]).items()}
    same = {i: new[b] for i, b in tokenizer.spellings(folders["old"]).items() if b in new}
    same |= {i: i for i in range(16)}
    asked = list(same)[:40]
    before = logits(model, asked)
    told = change_vocabulary(model, folders["old"], folders[name])
    after = logits(model, [same[i] for i in asked])
    assert torch.equal(before[:, list(same)], after[:, list(same.values())])
    assert told.kept >= len(same) > 270 and told.spelled and told.rows % 64 == 0 == after.shape[1] % 64
    assert told.kept + told.spelled + told.fresh == told.rows == model.config.vocab_size
    assert model.config.tie_word_embeddings is tied
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied


def test_a_new_row_is_the_mean_of_what_spelled_it(folders: dict[str, Path]) -> None:
    model = tiny(False)
    before = model.get_output_embeddings().weight.detach().clone()
    change_vocabulary(model, folders["old"], folders["grown"])
    old, grown = tokenizer.load(folders["old"]), tokenizer.load(folders["grown"])
    assert grown.get_vocab_size() == 420
    for number in range(320, 420):
        text = grown.decode([number])
        if "\ufffd" not in text:
            rows = old.encode(text).ids
            assert len(rows) > 1
            assert torch.allclose(model.get_output_embeddings().weight[number], before[rows].mean(0), atol=1e-7)


def test_it_is_the_models_own_tokenizer_or_none(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tiny(False), folders["old"], tmp_path / "model")
    model, _ = load_pair(tmp_path / "model")
    with pytest.raises(LabError, match="was made with tokenizer"):
        change_vocabulary(model, folders["grown"], folders["other"])
    change_vocabulary(model, folders["old"], folders["grown"])
    save_model(model, folders["grown"], tmp_path / "changed")
    assert len(load_pair(tmp_path / "changed")[1]) == 420


def test_a_model_with_another_tokenizer_is_not_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    """Both hashes and the remedy are said; the hash survives stages that load and write the model."""
    save_model(tiny(False), folders["old"], tmp_path / "first")
    save_pair(*load_pair(tmp_path / "first"), tmp_path / "second")
    load_pair(tmp_path / "second")
    hashes = {name: tokenizer.tokenizer_hash(folder) for name, folder in folders.items()}
    assert json.loads((tmp_path / "second" / "config.json").read_text())["tokenizer_hash"] == hashes["old"]
    tokenizer.copy(folders["other"], tmp_path / "second")
    with pytest.raises(LabError, match=rf"{hashes['old']}.*{hashes['other']}.*Prepare\(tokenizer=run\.model\)"):
        load_pair(tmp_path / "second")
    with pytest.raises(LabError, match=hashes["other"]):
        save_model(load_pair(tmp_path / "first")[0], folders["other"], tmp_path / "third")
    assert not (tmp_path / "third").exists()
