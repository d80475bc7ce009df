"""Fast encoders: the reference's ids or none, and the manifest says which ran and on what it was compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data import prepare, shards, tokenizer
from lablib.data.tokenizer import encoding
from lablib.runs import Recorder
from lablib.specs import Prepare, TokenizerSpec
from lablib.specs.tokenizing import Split, TokenizerKind

TEXTS = ["the river of numbers 12 345 flows past código naïve 日本 and I'm here; def f(x):\n    return x+1\n" * 20]
SPLITS: tuple[Split, ...] = ("qwen2", "llama3", "cl100k", "gpt2")
TRAINED = {split: tokenizer.train(TEXTS, 400, TokenizerSpec(split=split)) for split in SPLITS}
FAST = {(split, name): make(TRAINED[split], 1) for split in SPLITS for name, make in encoding.FAST.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=150) | st.lists(st.sampled_from([*tokenizer.SPECIAL, "'s", "\u00a0a", "x ", "\n"])).map("".join)
)
def test_every_fast_encoder_gives_the_references_ids(text: str) -> None:
    for split, trained in TRAINED.items():
        right = tokenizer.encode(trained, [text])[0].tolist()
        for name in encoding.FAST:
            assert FAST[split, name]([text])[0].tolist() == right, (split, name)


@pytest.mark.parametrize("split", SPLITS)
def test_the_fastest_is_taken_after_the_check(split: Split) -> None:
    found = tokenizer.fastest(TRAINED[split], TEXTS)
    assert found.name.startswith("gigatoken ") and found.refused == {}
    assert found.compared > len(encoding.STRESS) + len(TEXTS) + 150, "every token's own text is compared too"
    assert [row.dtype for row in found.run(TEXTS)] == [np.uint32]


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_other_algorithms_stay_with_the_reference(kind: TokenizerKind) -> None:
    found = tokenizer.fastest(tokenizer.train(TEXTS, 600, TokenizerSpec(kind=kind)), TEXTS)
    assert found.name.startswith("tokenizers ") and len(found.refused) == 2


def _plant(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> None:
    monkeypatch.setattr(
        encoding, "FAST", {"gigatoken": make, **{k: v for k, v in encoding.FAST.items() if k != "gigatoken"}}
    )


def test_gigatoken_as_it_loads_a_file_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds special tokens in text; the next one is taken."""
    import gigatoken

    def naive(trained: Any, _: int) -> Callable[[Sequence[str]], list[Any]]:
        fast = gigatoken.Tokenizer.from_json(trained.to_str())
        return lambda texts: [np.array(row) for row in fast.encode_batch_list(list(texts), parallel=False)]

    _plant(monkeypatch, naive)
    found = tokenizer.fastest(TRAINED["qwen2"], TEXTS)
    assert found.name.startswith("tiktoken ")
    [why] = found.refused.values()
    assert why.startswith("other ids for ") and "<|endoftext|>" in why


def test_one_that_is_wrong_on_a_document_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the last id of one kind of text is lost."""

    def losing(trained: Any, _: int) -> Callable[[Sequence[str]], list[Any]]:
        return lambda texts: [
            row[: len(row) - ("secret" in text)]
            for text, row in zip(texts, tokenizer.encode(trained, texts), strict=True)
        ]

    _plant(monkeypatch, losing)
    assert tokenizer.fastest(TRAINED["qwen2"], TEXTS).name.startswith("gigatoken "), "nothing shows it"
    assert tokenizer.fastest(TRAINED["qwen2"], [*TEXTS, "a secret"]).name.startswith("tiktoken ")


def test_shards_are_the_same_whichever_encoder_ran(
    texts: Path, prepared: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = shards.manifest(prepared / "data")
    encoder = ours["tokenizer"]["encoder"]
    assert encoder["name"].startswith("gigatoken ") and encoder["compared"] > 180
    for left, name in (({"tiktoken": encoding.FAST["tiktoken"]}, "tiktoken "), ({}, "tokenizers ")):
        monkeypatch.setattr(encoding, "FAST", left)
        monkeypatch.setenv("LAB_HOME", str(tmp_path / name.strip()))
        run = Recorder.create(tmp_path / "runs", Prepare(corpus=str(texts), vocab=400, heldout=0.1))
        prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
        other = shards.manifest(run.path / "data")
        assert other["tokenizer"]["encoder"]["name"].startswith(name)
        assert other["shards"] == ours["shards"], "with the checksums of all files"
