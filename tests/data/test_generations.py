"""Generations of a corpus: counted as by hand, and the alarm goes off for the one that repeats itself and for no other."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data import generations, provenance, readback
from lablib.data.mixing.collapse import Caps, Origin, guard
from lablib.data.prepare import prepare
from lablib.data.scale import Team, corpora
from lablib.data.sources.files import Files
from lablib.data.tokenizer import load
from lablib.runs import Recorder, jsonl
from lablib.specs import LabError, Prepare

MANY = [
    f"{one}{other}" for one in ("ba", "ko", "mi", "sul", "ter") for other in ("dor", "len", "nik", "pa", "ro", "wes")
]
FEW = MANY[:3]


def page(number: int) -> str:
    """Sixty words; people's and the first generation's of a thousand different ones, the second's of three."""
    draw = random.Random(number)
    if number >= 60:
        return " ".join(draw.choices(FEW, k=60)) + f" {number}"
    return " ".join(f"{draw.choice(MANY)}{draw.randrange(30)}" for _ in range(60))


ROWS = [
    *({"text": page(n), "domain": "web"} for n in range(40)),
    *({"text": page(n), "domain": "tales", "generation": 1} for n in range(40, 60)),
    *({"text": page(n), "domain": "tales", "generation": 2} for n in range(60, 80)),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data run over three generations, under caps that let all of them in."""
    base = tmp_path_factory.mktemp("generations")
    (base / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(base / "home"))
        recipe = Prepare(corpus=str(base / "mine.jsonl"), vocab=300, heldout=0.1, synthetic=Caps(depth=2, corpus=0.9))
        made = Recorder.create(base / "runs", recipe)
        prepare(recipe, made)
    return made.path


def test_each_generation_is_counted_and_none_breaks_a_cap(run: Path) -> None:
    told = generations.read(run)
    assert told is not None and told.enforced and told.caps == Caps(depth=2, corpus=0.9)
    tokenizer = load(run / "tokenizer")
    for one, wanted in zip(told.shares, (ROWS[:40], ROWS[40:60], ROWS[60:]), strict=True):
        tokens = sum(len(tokenizer.encode(str(row["text"])).ids) + 1 for row in wanted)
        assert (one.documents, one.tokens, one.stays) == (len(wanted), tokens, tokens)
        assert one.synthetic == (one.generation > 0) and not one.depth + one.document + one.corpus


def test_diversity_is_that_of_the_texts_themselves(run: Path) -> None:
    """Sets of n-grams over the rows that were written above, cut to the mean length of the shortest generation."""
    texts = {hashlib.sha256(str(row["text"]).encode()).hexdigest(): str(row["text"]).split() for row in ROWS}
    mine: dict[int, list[str]] = defaultdict(list)
    for row in provenance.documents(run / "data"):
        if row["split"] == "train":
            mine[row.get("generation", 0)].append(row["sha256"])
    length = min(-(-sum(len(texts[key]) for key in keys) // len(keys)) for keys in mine.values())
    size = min(sum(min(length, len(texts[key])) for key in keys) for keys in mine.values())
    told = generations.read(run)
    assert told is not None and list(told.diversity) == [0, 1, 2]
    for depth, found in told.diversity.items():
        left, pairs = size, []
        for key in sorted(mine[depth]):
            words = texts[key][:length][:left]
            left -= len(words)
            pairs += list(pairwise(words))
        assert found.words == size and found.distinct[2] == pytest.approx(len(set(pairs)) / len(pairs))


def test_only_the_generation_that_repeats_itself_raises_the_alarm(run: Path) -> None:
    told = generations.read(run)
    assert told is not None and set(told.alarms) == {2}
    assert {one.measure for one in told.alarms[2]} == {"distinct-1", "distinct-2", "distinct-3", "compression ratio"}
    assert generations.unpacked(json.loads(json.dumps(told.facts))) == told
    [said] = [event["text"] for event in jsonl.events(run) if event["kind"] == "warning"]
    assert said.startswith("Generation 2 has drifted from people's text: distinct-1 ") and "less diverse" in said


def test_nothing_is_told_without_models_text_or_with_too_little(
    prepared: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generations.read(prepared) is None and not (prepared / generations.FILE).exists()
    monkeypatch.setattr(generations, "FEWEST", 60 * 25)
    assert generations.diversities(run / "data", run / "tokenizer") == {}
    with pytest.raises(LabError):
        readback.require(run / "data", prepared / "tokenizer")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1000), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 3)), min_size=1),
    st.integers(0, 3),
    st.sampled_from([0.2, 1.0]),
    st.floats(0, 1),
)
def test_every_token_stays_or_goes_by_one_cap(
    rows: list[tuple[int, float, int]], depth: int, document: float, corpus: float
) -> None:
    tokens, share, deep = (np.array(column) for column in zip(*rows, strict=True))
    origin, caps = Origin(tokens, share, deep * (share > 0)), Caps(depth=depth, document=document, corpus=corpus)
    found = generations.shares(origin, caps)
    assert [one.tokens for one in found] == [one.stays + one.depth + one.document + one.corpus for one in found]
    assert sum(one.tokens for one in found) == tokens.sum() and sum(one.documents for one in found) == len(rows)
    assert all((one.depth > 0) == (one.generation > depth) for one in found)
    assert sum(one.stays for one in found) == tokens[guard(origin, caps).keep].sum()


def test_an_unreadable_corpus_names_folder_file_and_row(tmp_path: Path, home: Path) -> None:
    """Read in one go and in parts; of several sources the one that cannot be read."""
    bad = tmp_path / "scraped"
    bad.mkdir()
    for name in ("a", "b"):
        (bad / f"{name}.jsonl").write_text('{"question": "what?"}\n' * 3)
    said = rf'^corpus {re.escape(str(bad))}: nothing in it can be read \(a.jsonl#1: row without a "text";'
    for size in (1e9, 10):
        with pytest.raises(LabError, match=said):
            corpora.read([Files(bad)], f"key-{size}", Team(), size, lambda *_: None)
    good = tmp_path / "good.txt"
    good.write_text(page(1))
    with pytest.raises(LabError, match=said):
        from lablib.data import corpus

        (tmp_path / "built").mkdir()
        corpus.build([Files(good), Files(bad)], tmp_path / "built")
