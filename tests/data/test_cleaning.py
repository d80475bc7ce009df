"""Thresholds on signals: each is used, counted in order and sourced; the step of the funnel reads no text twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lablib.data import corpus, funnel
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.quality import Quality, measure, reasons, signals, table, verdicts
from lablib.data.quality.sample import SPLITTERS, sample
from lablib.data.sources.files import Files
from lablib.specs import Clean, LabError
from lablib.specs.cleaning import PRESETS

GOLDEN = json.loads((Path(__file__).parent / "quality_golden.json").read_text(encoding="utf-8"))["documents"]


def document(text: str, source: str = "here") -> Document:
    return Document("web", source, "CC0", text)


def ramp(documents: int = 41) -> pl.DataFrame:
    """A table in which every signal takes every value from 0 to 40 once, each in an order of its own."""
    rng = random.Random(0)
    names = {limit.signal for limit in Clean.limits().values()}
    made = {name: rng.sample([float(value) for value in range(documents)], documents) for name in sorted(names)}
    known = {"sha256": [f"{n:064x}" for n in range(documents)], "bytes": [100 + n for n in range(documents)],
             "problem": [""] * documents, "language": ["en"] * documents, "host": [""] * documents}  # fmt: skip
    return pl.DataFrame({**known, **made})


@pytest.mark.parametrize("name", Clean.limits())
def test_every_threshold_is_used(name: str) -> None:
    """Sweeping it changes what is flagged at every step (a threshold defined and unused was marin#5650)."""
    frame = ramp()
    dropped = [len(reasons(frame, Clean(**{name: value}))) for value in (0, 5, 10, 20, 39, 40)]
    expected = [0, 5, 10, 20, 39, 40] if Clean.limits()[name].side == "min" else [40, 35, 30, 20, 1, 0]
    assert dropped == expected, "what lies on the threshold stays"


def test_every_signal_of_a_threshold_is_measured() -> None:
    measured = set(measure([document("some text")]).columns)
    assert {limit.signal for limit in Clean.limits().values()} - measured == {"quality", "profanity"}
    assert all(limit.says and limit.source for limit in Clean.limits().values())


def test_presets_have_the_published_numbers() -> None:
    """Typed from arXiv 2112.11446 (§A.1.1, table A1) and 2406.17557 §3.6."""
    gopher = Clean(preset="gopher")
    assert (gopher.min_words, gopher.max_words, gopher.min_word_length, gopher.max_word_length) == (50, 100_000, 3, 10)
    assert (gopher.max_hash_ratio, gopher.max_bullet_lines, gopher.max_ellipsis_lines) == (0.1, 0.9, 0.3)
    assert (gopher.min_alphabetic_words, gopher.min_stop_words) == (0.8, 2)
    assert [getattr(gopher, f"max_top_{n}gram") for n in (2, 3, 4)] == [0.2, 0.18, 0.16]
    assert [getattr(gopher, f"max_duplicate_{n}gram") for n in range(5, 11)] == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    fineweb = Clean(preset="fineweb")
    assert (fineweb.min_terminal_lines, fineweb.max_short_lines, fineweb.languages) == (0.12, 0.67, ("en",))
    assert not list(Clean().rules()) and {rule.name for rule in gopher.rules()} == set(PRESETS["gopher"])


def test_clean_round_trips_with_rules_left_out() -> None:
    clean = Clean(preset="fineweb", min_words=30, max_top_2gram=None, languages=("de", "en"), splitter="tokens")
    assert clean.off == ("max_top_2gram",) and clean.max_top_2gram is None and clean.max_words == 100_000
    assert Clean.from_toml(clean.to_toml()) == clean == Clean.from_json(clean.to_json())
    assert clean.replace(max_top_2gram=0.3).max_top_2gram == 0.3
    with pytest.raises(LabError, match="min_words is no threshold of preset 'c4'"):
        Clean(preset="c4", off=("min_words",))
    with pytest.raises(LabError, match="max_top_2gram"):
        Clean(max_top_2gram=-1)


def test_rules_are_counted_alone_and_in_order() -> None:
    """Against sets made by hand: three documents break the first rule, four the second, two both."""
    frame = ramp(5).with_columns(words=pl.Series([1.0, 2, 3, 9, 9]), top_2gram=pl.Series([0.9, 0.9, 0.1, 0.9, 0.9]))
    told = verdicts(frame, Clean(min_words=5, max_top_2gram=0.5))
    first, second = told.effects
    assert (first.rule, first.docs_alone, first.docs, first.bytes) == ("min_words", 3, 3, 303)
    assert (second.docs_alone, second.docs, second.bytes_alone, second.bytes) == (4, 2, 100 + 101 + 103 + 104, 207)
    assert set(reasons(frame, Clean(min_words=5, max_top_2gram=0.5)).values()) == {"gopher: too few words", "repetition: one 2-gram"}  # fmt: skip
    assert told.kept.sum() == 0


def test_web_addresses_and_languages() -> None:
    text = "The committee agreed that the report should be published before the end of the year."
    found = measure(
        [document(text, source) for source in ("https://a.Bad.example:8080/x", "http://notbad.example/", "http://10.0.0.1/", "file.txt", "http://[::1")]
    )  # fmt: skip
    assert found["host"].to_list() == ["a.bad.example", "notbad.example", "10.0.0.1", "", ""]

    def first(clean: Clean) -> list[int]:
        return verdicts(found, clean).first.tolist()

    assert first(Clean(blocked_hosts=("bad.example",))) == [0, -1, -1, -1, -1]
    assert first(Clean(max_host_is_ip=0)) == [-1, -1, 0, -1, -1]
    assert first(Clean(languages=("fr",))) == [0] * 5 and first(Clean(languages=("fr", "en"))) == [-1] * 5


def test_a_missing_column_is_named() -> None:
    with pytest.raises(LabError, match="no column 'quality'; add it first"):
        verdicts(measure([document("text")]), Clean(min_quality=0.5))


# the step, stored signals


@pytest.fixture
def built(tmp_path: Path, home: Path) -> Corpus:
    """Three sound documents, one that repeats itself and one with too few words."""
    root = tmp_path / "texts"
    root.mkdir()
    for number, row in enumerate(GOLDEN[:3]):
        (root / f"{number}.txt").write_text(row["text"], encoding="utf-8")
    (root / "again.txt").write_text("the same words come again and again to you\n" * 40)
    (root / "short.txt").write_text("Only a few words, and that is all of it.")
    folder = tmp_path / "corpus"
    folder.mkdir()
    corpus.build([Files(root)], folder)
    return Corpus(folder)


def test_the_step_drops_with_a_reason_and_counts(built: Corpus) -> None:
    left = funnel.refine(built, [Quality(Clean(min_words=50, max_duplicate_lines=0.3))])
    (row,) = left.funnel
    counted = row["domains"]["texts"]
    assert (counted["docs_in"], counted["docs_out"]) == (5, 3)
    assert counted["reasons"] == {"gopher: too few words": 1, "repetition: lines": 1}
    assert counted["bytes_in"] == built.bytes("texts") and counted["bytes_out"] == left.bytes("texts")


def test_thresholds_move_without_reading_text_again(built: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Quality(Clean(min_words=50, max_duplicate_lines=0.3)).decide(built)

    def never(*_: Any) -> None:
        raise AssertionError("a text was read again")

    monkeypatch.setattr(table, "columns", never)
    assert set(Quality(Clean(min_words=3, max_duplicate_lines=0.3)).decide(built)) < set(before)
    with pytest.raises(AssertionError, match="read again"):
        Quality(Clean(preset="gopher", splitter="tokens")).decide(built)


def test_hosts_are_those_of_this_corpus(tmp_path: Path, home: Path) -> None:
    """The same texts under other addresses are another table."""
    gone = []
    for host in ("spam.example", "fine.example"):
        folder = tmp_path / host
        folder.mkdir()
        with corpus.Writer(folder) as writer:
            writer.add(document("A text of one and the same words, whose address is another.", f"https://{host}/page"))
        writer.describe({"web": {}})
        gone.append(len(Quality(Clean(blocked_hosts=("spam.example",))).decide(Corpus(folder))))
    assert gone == [1, 0]


def test_stored_signals_are_the_measured_ones(built: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many small batches and files as in one."""
    once = measure(built.documents("texts"), "words")
    monkeypatch.setattr(table, "BATCH", 10)
    monkeypatch.setattr(table, "PART", 2)
    assert signals(built, "words").equals(once)
    folder = table.stored(built, "words")
    assert len(list(folder.glob("*.parquet"))) == 3


def test_the_key_follows_what_is_decided() -> None:
    gopher = Quality(Clean(preset="gopher"))
    assert gopher.key() == Quality(Clean(**PRESETS["gopher"])).key(), "a preset's name decides nothing"
    others = [Clean(preset="gopher", min_words=51), Clean(preset="gopher", splitter="words"), Clean(preset="gopher", languages=("en",)),
              Clean(preset="gopher", blocked_hosts=("a.b",)), Clean(preset="gopher", max_top_2gram=None)]  # fmt: skip
    assert len({gopher.key(), *(Quality(clean).key() for clean in others)}) == 6


def test_the_splitter_decides_what_stays() -> None:
    """On the sample of real texts the same thresholds keep fewest by tokens (notes: 69 % and 10 % on technical text)."""
    kept = {s: verdicts(sample(s), Clean(preset="gopher", splitter=s)).kept.mean() for s in SPLITTERS}
    assert kept["tokens"] < kept["whitespace"] - 0.2
