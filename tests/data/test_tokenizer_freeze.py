"""New data joins an old model: an existing tokenizer is taken as it is, and another one is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lablib.data import shards, tokenizer
from lablib.data.prepare import prepare
from lablib.evals.heldout import read_pieces
from lablib.runs import Recorder, Run, artefacts
from lablib.specs import LabError, ModelSpec, Prepare, Pretrain, Ref, TokenizerSpec
from lablib.specs.stages import parse_recipe


def execute(root: Path, recipe: Prepare) -> Recorder:
    run = Recorder.create(root, recipe)
    prepare(recipe, run)
    return run


@pytest.fixture
def new_text(write_texts: Callable[..., None], tmp_path: Path) -> Path:
    """A folder of other documents."""
    write_texts(tmp_path / "new", "notes", 40, 7)
    return tmp_path / "new"


def test_new_data_takes_the_old_tokenizer(prepared: Path, new_text: Path, home: Path) -> None:
    """By reference or by folder: the same ids as the old tokenizer gives, whatever `vocab` says."""
    old = Run.open(prepared)
    named = execute(prepared.parent, Prepare(corpus=str(new_text), tokenizer=old.tokenizer, heldout=0.1))
    given = execute(prepared.parent, Prepare(corpus=str(new_text), tokenizer=str(prepared / "tokenizer"), heldout=0.1))
    card = shards.manifest(named.path / "data")
    assert card["tokenizer"]["hash"] == shards.manifest(prepared / "data")["tokenizer"]["hash"]
    assert card["shards"] == shards.manifest(given.path / "data")["shards"]
    assert (named.path / "tokenizer" / "tokenizer.json").read_bytes() == (prepared / "tokenizer" / "tokenizer.json").read_bytes()  # fmt: skip
    words, data = tokenizer.load(prepared / "tokenizer"), shards.read(named.path / "data", "notes", "train", 400)
    texts = {file.read_text() for file in (new_text / "notes").iterdir()}
    first = data.tokens[: data.lengths[0] - 1]
    assert words.decode(first.tolist(), skip_special_tokens=False) in texts
    assert np.array_equal(tokenizer.encode(words, [words.decode(first.tolist())])[0], first)


def test_the_default_tokenizer_is_no_new_experiment() -> None:
    plain, ref = Prepare(), Ref(run="a", artefact="tokenizer", science="0")
    assert "tokenizer" not in plain.science()
    assert Prepare(tokenizer="unigram") == Prepare(tokenizer=TokenizerSpec(kind="unigram")) != plain
    others = [
        plain,
        Prepare(tokenizer="unigram"),
        Prepare(tokenizer=TokenizerSpec(split="gpt2")),
        Prepare(tokenizer=ref),
    ]
    assert len({recipe.science_hash for recipe in others}) == 4
    assert Prepare(tokenizer=ref, vocab=512).science_hash == Prepare(tokenizer=ref).science_hash
    assert Prepare(tokenizer=ref).refs() == [ref]
    for recipe in others:
        assert parse_recipe(recipe.model_dump(mode="json")) == recipe == Prepare.from_toml(recipe.to_toml())
    with pytest.raises(LabError, match="kind"):
        Prepare(tokenizer={"kind": "morphemes"})  # type: ignore[arg-type]


def test_data_with_another_tokenizer_is_not_read(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "tokenizer", tmp_path / "tokenizer")
    assert read_pieces(prepared / "data", tmp_path / "tokenizer", 100)
    tokenizer.save(tokenizer.train(["other text"], 400), tmp_path / "tokenizer")
    with pytest.raises(
        LabError, match=r"data .* was made with tokenizer [0-9a-f]{16}, but the one in .* is [0-9a-f]{16}"
    ):
        read_pieces(prepared / "data", tmp_path / "tokenizer", 100)


def test_a_tokenizer_without_a_separator_is_refused(prepared: Path, new_text: Path, home: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    tokenizer.save(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])), tmp_path / "bare")
    with pytest.raises(LabError, match=r"has no <\|endoftext\|> to end documents with"):
        execute(tmp_path / "runs", Prepare(corpus=str(new_text), tokenizer=str(tmp_path / "bare")))


def test_pretraining_does_not_begin_on_data_of_another_tokenizer(prepared: Path, tmp_path: Path) -> None:
    """Planted: the tokenizer beside the shards was replaced and registered again, so that its checksum is right."""
    import torch

    from lablib.train.distributed import World
    from lablib.train.source import find_source

    copied = Path(shutil.copytree(prepared, tmp_path / "runs" / prepared.name))
    model = ModelSpec(layers=1, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=400)
    recipe = Pretrain(model=model, data=Run.open(copied).data, tokens=640, seq_len=64, batch_tokens=64)
    world = World(0, 1, torch.device("cpu"))
    assert find_source(recipe, Recorder.create(tmp_path / "runs", recipe), world) is not None
    tokenizer.save(tokenizer.train(["other text"], 400), copied / "tokenizer")
    artefacts.register(copied, "tokenizer", copied / "tokenizer", "tokenizer")
    with pytest.raises(LabError, match="was made with tokenizer"):
        find_source(recipe, Recorder.create(tmp_path / "runs", recipe), world)
