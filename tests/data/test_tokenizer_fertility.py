"""Fertility: sums that can be checked by hand, a run's held-out text, and published tokenizers by their makers' examples."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab.__main__ import main
from lablib.data import shards, tokenizer
from lablib.data.documents import file_sha256
from lablib.data.packages import Package
from lablib.data.tokenizer import fertility
from lablib.data.tokenizer.published import LANGUAGES, PUBLISHED, Published, declaration, published
from lablib.specs import LabError, TokenizerSpec
from lablib.specs.catalog import rows

TEXTS = {"a": ["the cat the cat"] * 40, "b": ["ça 日本 12345"]}


def test_without_merges_a_token_is_a_byte() -> None:
    bare = tokenizer.train([""], tokenizer.SMALLEST)
    for row in fertility.measure("bare", bare, TEXTS):
        assert row.tokens == row.bytes == sum(len(text.encode()) for text in TEXTS[row.text])
        assert row.bytes_per_token == 1 and row.words == sum(len(text.split()) for text in TEXTS[row.text])


def test_tokens_a_word_are_not_told_where_words_are_not_separated() -> None:
    told = {name: fertility.Fertility("t", 300, name, 60, 10, 20).tokens_per_word for name in ("German", "Japanese")}
    assert told == {"German": 2.0, "Japanese": None}


def test_a_larger_vocabulary_never_takes_more_of_its_own_text() -> None:
    text = Path(fertility.__file__).read_text()
    found = fertility.by_size("x", tokenizer.train([text], 900), {"code": [text]}, (272, 300, 500, 2000))
    assert [row.vocab for row in found[:3]] == [272, 300, 500] and len(found) == 4
    assert [row.tokens for row in found] == sorted((row.tokens for row in found), reverse=True)
    assert found[0].tokens == found[0].bytes


def test_the_command_measures_a_runs_heldout_text(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the run's own vocabulary the tokens are those of its shards."""
    assert main(["tokenizer", str(prepared), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    card = shards.manifest(prepared / "data")
    assert told["hash"] == card["tokenizer"]["hash"]
    counted = {
        row["domain"]: (row["bytes"], row["tokens"] - row["docs"])
        for row in card["shards"]
        if row["split"] == "heldout"
    }
    assert {row["text"]: (row["bytes"], row["tokens"]) for row in told["rows"]} == counted
    assert main(["tokenizer", str(prepared)]) == 0
    assert "bytes a token" in capsys.readouterr().out


def test_other_algorithms_are_measured_at_their_own_size(prepared: Path, tmp_path: Path) -> None:
    words = tokenizer.train(TEXTS["a"], 300, TokenizerSpec(kind="unigram"))
    with pytest.raises(LabError, match="Unigram tokenizer cannot be cut"):
        fertility.by_size("x", words, TEXTS, (100,))
    assert len(fertility.measure("x", words, TEXTS)) == 2


def test_the_saved_table_is_whole() -> None:
    """Every tokenizer on every text; the same text has the same bytes under each."""
    found = rows("fertility")
    texts, names = {row["text"] for row in found}, {(row["tokenizer"], row["vocab"]) for row in found}
    assert len(found) == len(texts) * len(names)
    assert set(LANGUAGES) < texts and {name for name, _ in names} == {"core", *PUBLISHED}
    assert all(len({row["bytes"] for row in found if row["text"] == text}) == 1 for text in texts)
    assert all(int(row["vocab"]) == PUBLISHED[row["tokenizer"]].vocab for row in found if row["tokenizer"] != "core")


def test_a_raised_pin_is_not_answered_with_the_old_tokenizer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: two versions of a package, each at its place in the cache."""
    sizes = []
    for version, vocab in (("1", 273), ("2", 280)):
        content = tokenizer.train(TEXTS["a"] + TEXTS["b"], vocab).to_str().encode()
        package = Package("made-up", version, f"made-up-{version}.tgz", "", 0, "none")
        package.path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(package.path, "w:gz") as archive:
            info = tarfile.TarInfo("package/models/tokenizer.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        pinned = Published("made up", vocab, replace(package, sha256=file_sha256(package.path)))
        monkeypatch.setitem(PUBLISHED, "made-up", pinned)
        sizes += [published("made-up").get_vocab_size(), published("made-up").get_vocab_size()]
    assert sizes == [273, 273, 280, 280]


@pytest.mark.slow
def test_published_tokenizers_give_their_makers_ids() -> None:
    """OpenAI's cookbook, "How to count tokens with tiktoken"; Llama 3 begins with cl100k's tokens. Needs npm and 108 MB."""
    said = "tiktoken is great!"
    assert tokenizer.encode(published("cl100k"), [said])[0].tolist() == [83, 1609, 5963, 374, 2294, 0]
    assert tokenizer.encode(published("o200k"), [said])[0].tolist() == [83, 8251, 2488, 382, 2212, 0]
    both = (tokenizer.encode(published(name), ["hello world"])[0].tolist() for name in ("cl100k", "llama3"))
    assert list(both) == [[15339, 1917]] * 2
    for name, one in PUBLISHED.items():
        assert published(name).get_vocab_size() == one.vocab
    texts = declaration()
    assert set(texts) == set(LANGUAGES) and all(2000 < len(text) < 20_000 for text in texts.values())
    assert "All human beings are born free and equal in dignity and rights." in texts["English"]
