"""Decontamination: what is found, what is left alone, what is refused, and that an index is the same from the same items."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy.stats import beta

from bench.data import contamination as bench
from lablib.data import corpus, funnel
from lablib.data.contamination import (
    BenchmarkItem,
    Decontamination,
    Detector,
    Index,
    Library,
    build,
    grams,
    presences,
    registry,
    search,
)
from lablib.data.contamination import detector as detection
from lablib.data.contamination import items as reading
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.sources.files import Files
from lablib.specs import LabError, Task
from lablib.specs.contamination import BENCHMARKS, Decontaminate

OWN_TASK = Task(name="sisters", generator="aiw", train=1, test=100)
QUESTION = (
    "Marta keeps 17 geese and 4 donkeys behind the old mill. Every goose eats 250 grams of barley on a weekday and "
    "1,300 grams on a Sunday. How many kilograms does she need for 6 weeks?"
)
KNOWN = BenchmarkItem("farm-1", QUESTION, "210")


@pytest.fixture(scope="session")
def benchmarks() -> dict[str, list[BenchmarkItem]]:
    """Word problems, 200 of each kind, and test items of one of the lab's own tasks."""
    made = bench.word_problems(200, ("gsm_symbolic", "knights_knaves", "syllogism", "needle_haystack"))
    return {**made, "sisters": reading.of_task(OWN_TASK)}


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Real text: pieces of the packages that are installed here."""
    return bench.chunks(2000, 1500)


@pytest.fixture(scope="session")
def found(benchmarks: dict[str, list[BenchmarkItem]]) -> bench.Scan:
    """Which of some texts hold an item."""
    return bench.ours(benchmarks, Decontaminate())


def one(question: str = QUESTION, answer: str = "210", **settings: object) -> Callable[[str], bool]:
    """Whether a text holds this one question."""
    spec = Decontaminate(**settings)
    detector = Detector([build("own", [BenchmarkItem("a", question, answer)], spec.method)], spec)
    return lambda text: bool(next(iter(detector.search([text]))))


@pytest.mark.parametrize(
    ("kind", "least"),
    [("exact", 0.99), ("case", 0.99), ("punctuation", 0.99), ("unicode", 0.99), ("wrapped", 0.99), ("half", 0.7),
     ("edited 5 %", 0.95), ("edited 10 %", 0.93), ("edited 20 %", 0.9)],
)  # fmt: skip
def test_recall(
    kind: str, least: float, benchmarks: dict[str, list[BenchmarkItem]], documents: list[str], found: bench.Scan
) -> None:
    texts = bench.injected(kind, benchmarks, documents, 150)
    assert sum(found(texts)) >= least * len(texts)


def test_short_questions(documents: list[str]) -> None:
    """Of 6 to 12 words; by 13-grams none of them can be found."""
    items = [BenchmarkItem(str(at), f"{first} {rest}?") for at, (first, rest) in enumerate(
        (first, rest) for first in ("Which", "What") for rest in
        ["river drains the northern slopes of Kilimanjaro", "enzyme unwinds the helix before a cell divides",
         "treaty ended the war of the Bavarian succession", "gas did Scheele call fire air in 1777"])]  # fmt: skip
    texts = bench.injected("short", {"short": items}, documents, 150)
    assert sum(bench.ours({"short": items}, Decontaminate())(texts)) >= 0.99 * 150
    assert not any(bench.ours({"short": items}, Decontaminate(method="ngram13"))(texts))


@pytest.mark.parametrize("name", sorted(bench.TRANSFORMS))
def test_other_code_points_change_nothing(name: str, benchmarks: dict[str, list[BenchmarkItem]]) -> None:
    """Every item of every set is found, and with the same score as itself."""
    for items in ({"x": benchmarks["gsm_symbolic"][:60]}, {"x": [KNOWN]}):
        detector = Detector([build(key, value) for key, value in items.items()])
        changed = [bench.TRANSFORMS[name](item.question) for item in items["x"]]
        scores = [{match.item: match.score for match in matches} for matches in detector.search(changed)]
        assert [score.get(item.id) for score, item in zip(scores, items["x"], strict=True)] == [1.0] * len(changed)


@pytest.mark.parametrize("text", ["1,300 grams", "1300 grams", "１３００ grams", "1 300 grams"])
def test_ways_of_writing_a_number_are_no_other_number(text: str) -> None:
    assert one()(QUESTION.replace("1,300 grams", text))


def test_plain_scan_misses_what_is_written_otherwise(
    benchmarks: dict[str, list[BenchmarkItem]], documents: list[str]
) -> None:
    """The peer is a real one and the bars are not met by chance: it loses edited and other-code-point variants."""
    plain = bench.Plain.of([item for items in benchmarks.values() for item in items], 13)
    assert sum(plain(bench.injected("edited 20 %", benchmarks, documents, 150))) < 0.8 * 150
    assert sum(plain(bench.injected("unicode", benchmarks, documents, 150))) < 0.9 * 150


def most(positives: int, of: int) -> float:
    """Upper end of the exact two-sided 95 % interval: a quantile of the beta distribution."""
    return float(beta.ppf(0.975, positives + 1, of - positives))


def test_clean_documents_stay(documents: list[str], found: bench.Scan) -> None:
    positives = sum(found(documents))
    assert len(documents) >= 2000 and positives <= 0.002 * len(documents) and most(positives, len(documents)) < 0.0065
    assert bench.rate(positives, len(documents))["high"] == pytest.approx(most(positives, len(documents)), abs=1e-5)


def test_same_template_with_other_numbers_stays(benchmarks: dict[str, list[BenchmarkItem]], found: bench.Scan) -> None:
    misses = bench.near_misses(random.Random(1), benchmarks["gsm_symbolic"], 2000)
    assert sum(found(misses)) <= 4
    lenient = bench.ours({"gsm_symbolic": benchmarks["gsm_symbolic"]}, Decontaminate(numbers=0))
    assert sum(lenient(misses[:200])) > 190, "without the rule about numbers they would all go"


@pytest.mark.parametrize(("old", "new"), [("17", "23"), ("250", "90"), ("6 weeks", "8 weeks")])
def test_how_many_numbers_may_differ_is_a_setting(old: str, new: str) -> None:
    changed = QUESTION.replace(old, new)
    assert not one()(changed) and one(numbers=0.6)(changed)
    assert not one(numbers=0.6)(bench.other_numbers(random.Random(3), QUESTION))


def test_numerals_in_words_count_as_numbers() -> None:
    question = "A baker sells three trays of seven rolls each morning and keeps two rolls for his old neighbour."
    holds = one(question)
    assert holds(question.replace("three", "3").replace("seven", "7").replace("two", "2"))
    assert not holds(question.replace("three", "nine").replace("seven", "eleven").replace("two", "six"))


def test_an_item_that_is_more_alike_explains_a_near_miss() -> None:
    """Two items share their second half; the first one with other numbers is not the second one."""
    tail = "Answer in at most a single paragraph and mention neither politics nor religion in it."
    items = [BenchmarkItem("a", f"Describe the 14 stations of the cogwheel railway in 320 words. {tail}"),
             BenchmarkItem("b", f"Why do cats purr? {tail}")]  # fmt: skip
    detector = Detector([build("own", items)])
    changed = items[0].question.replace("14", "31").replace("320", "175")
    assert list(detector.search([changed])) == [[]]
    assert next(iter(detector.search([items[1].question])))[0].item == "b"


def test_each_threshold_is_used(benchmarks: dict[str, list[BenchmarkItem]], documents: list[str]) -> None:
    """A higher threshold finds strictly less, for each of the four."""
    some = {name: benchmarks[name][:100] for name in ("gsm_symbolic", "sisters")}
    indexes = [build(name, items) for name, items in some.items()]
    texts = bench.injected("edited 20 %", some, documents, 100)

    def found(texts: list[str], **settings: float) -> int:
        return sum(map(bool, Detector(indexes, Decontaminate(**settings)).search(texts)))

    long = [found(texts, threshold=share, short_threshold=1, edited=1) for share in (0.2, 0.5, 0.7, 1)]
    short = [found(texts, short_threshold=share, edited=1) for share in (0.3, 0.6, 0.9)]
    edits = [found(texts, threshold=1, short_threshold=1, edited=share) for share in (0.6, 0.8, 0.9)]
    numbers = [found(bench.siblings(some["gsm_symbolic"], 300), numbers=share) for share in (0, 0.4, 0.9)]
    for counts in (long, short, edits, numbers):
        assert counts == sorted(set(counts), reverse=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmarks": ("gsm8",)}, "did you mean 'gsm8k'"),
        ({"benchmarks": ("winogrande",)}, r"known are mmlu, .*path that ends in \.jsonl"),
        ({"benchmarks": ("mmlu", "mmlu")}, "names mmlu twice"),
        ({"benchmarks": ()}, "benchmarks"),
        ({"threshold": 0.6, "short_threshold": 0.5}, "set short_threshold to 0.6 or more"),
        ({"threshold": 0}, "threshold"),
        ({"method": "bloom"}, "coverage"),
    ],
)
def test_wrong_settings_teach(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Decontaminate(**settings)


def test_settings_round_trip() -> None:
    spec = Decontaminate(benchmarks=("mmlu", OWN_TASK, "mine.jsonl"), method="ngram13")
    assert Decontaminate.from_json(spec.to_json()) == spec == Decontaminate.from_toml(spec.to_toml())
    assert Decontaminate().benchmarks == BENCHMARKS and (spec.ngram, Decontaminate().ngram) == (13, 3)


def test_index_depends_on_items_not_on_their_order(benchmarks: dict[str, list[BenchmarkItem]]) -> None:
    items = benchmarks["gsm_symbolic"]
    shuffled = random.Random(4).sample(items, len(items))
    first = build("a", items).to_bytes()
    assert build("a", shuffled).to_bytes() == first != build("a", items[1:]).to_bytes()
    changed = [BenchmarkItem(items[0].id, items[0].question, "another answer"), *items[1:]]
    assert build("a", changed).to_bytes() != first


def test_index_holds_no_text(benchmarks: dict[str, list[BenchmarkItem]]) -> None:
    content = build("a", [KNOWN, *benchmarks["knights_knaves"]]).to_bytes()
    assert not any(word in content for word in (b"donkeys", b"barley", b"Marta", b"island"))


def test_index_file_round_trips_and_is_checked(tmp_path: Path) -> None:
    path, made = tmp_path / "own.index", build("own", [KNOWN])
    path.write_bytes(made.to_bytes())
    read = Index.load(path)
    assert read.to_bytes() == made.to_bytes() and read.sha256 == made.sha256
    assert next(iter(Detector([read]).search([QUESTION])))[0].item == "farm-1"
    path.write_bytes(made.to_bytes()[:-3] + b"abc")
    with pytest.raises(LabError, match="is damaged"):
        Index.load(path)
    path.write_bytes(made.to_bytes().replace(grams.fingerprint().encode(), b"0" * 16))
    with pytest.raises(LabError, match="another normaliser"):
        Index.load(path)
    path.write_text("{}\n")
    with pytest.raises(LabError, match="is no contamination index"):
        Index.load(path)


def test_weights_are_inverse_document_frequencies() -> None:
    """By hand: of 3 items two share "how many red"."""
    texts = ["how many red cats", "how many red dogs", "some other words"]
    made = build("own", [BenchmarkItem(str(at), text) for at, text in enumerate(texts)])
    words = grams.words(["how many red"], "coverage").hashes
    weight = dict(zip(made.hashes.tolist(), made.weights.tolist(), strict=True))
    assert len(weight) == 4 and weight[int(grams.ngrams(words, 3)[0])] == pytest.approx(np.log(4 / 2) / np.log(4))
    assert sorted(weight.values())[1:] == pytest.approx([1, 1, 1])


def test_items_that_cannot_be_found_are_listed() -> None:
    items = [BenchmarkItem("tiny", "Why not?"), BenchmarkItem("weak", "Is it raining?"),
             BenchmarkItem("confirmed", "Which is largest now?", "blue whale"), KNOWN]  # fmt: skip
    made = build("own", items)
    assert sorted(made.uncovered) == ["tiny", "weak"] and "no answer to confirm it by" in made.uncovered["weak"]
    detector = Detector([made])
    names = lambda text: [match.item for match in next(iter(detector.search([text])))]  # noqa: E731
    assert names("Is it raining? yes") == [] and names("So: which is largest now? An elephant.") == []
    assert names("So: which is largest now? The BLUE Whale, of course.") == ["confirmed"]
    assert set(build("own", items, "ngram13").uncovered) == {"tiny", "weak", "confirmed"}


def test_fast_search_is_the_definition(benchmarks: dict[str, list[BenchmarkItem]], documents: list[str]) -> None:
    """Every (document, item) that Python's sets say reaches its threshold in some passage is found, and no other."""
    items = benchmarks["syllogism"][:40]
    texts = bench.injected("edited 20 %", {"s": items}, documents, 40)
    spec = Decontaminate(numbers=0, threshold=0.3, short_threshold=0.3, edited=1)
    got = [{match.item for match in matches} for matches in Detector([build("s", items)], spec).search(texts)]
    own = [_grams(item.question) for item in items]
    shared = {gram: sum(gram in one for one in map(set, own)) for found in own for gram in found}
    weight = {gram: np.log(41 / count) / np.log(41) for gram, count in shared.items()}
    for text, found in zip(texts, got, strict=True):
        reached = {item.id for item, mine in zip(items, own, strict=True) if _best(_grams(text), mine, weight) >= 0.3}
        assert found == reached


def _grams(text: str) -> list[tuple[str, ...]]:
    words = "".join(c if c.isalnum() else " " for c in grams.cleaned(text, "coverage")).split()
    return list(zip(words, words[1:], words[2:], strict=False))


def _best(document: list[tuple[str, ...]], item: list[tuple[str, ...]], weight: dict[tuple[str, ...], float]) -> float:
    """Largest share of the item's weight in a passage of its length, by trying all passages."""
    span, mine = int(detection.STRETCH * (len(item) + 2)) + detection.SLACK - 2, set(item)
    passages = (mine.intersection(document[at : at + span]) for at in range(len(document)) if document[at] in mine)
    total = sum(weight[gram] for gram in mine)
    return max((sum(weight[gram] for gram in passage) for passage in passages), default=0) / total


def test_matches_do_not_depend_on_batches(
    benchmarks: dict[str, list[BenchmarkItem]], documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["", *bench.injected("edited 10 %", benchmarks, documents, 60), *documents[:40], "one word"]
    detector = Detector([build(name, items) for name, items in benchmarks.items()])
    whole = list(detector.search(texts))
    monkeypatch.setattr(detection, "BATCH", 1)
    assert list(detector.search(texts)) == whole and len(whole) == len(texts)


def test_a_long_document_is_searched_in_pieces(documents: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the item is, across a cut too, and its place is counted from the document's begin."""
    monkeypatch.setattr(detection, "LONGEST", 8000)
    monkeypatch.setattr(detection, "OVERLAP", 2000)
    detector = Detector([build("own", [KNOWN])])
    filler = " ".join(documents)[:40_000]
    for place in range(0, 40_000, 1700):
        text = f"{filler[:place]} \n{QUESTION}\n {filler[place:]}"
        (match,) = next(iter(detector.search([text])))
        begin, end = grams.place(text, match.begin, match.end, "coverage")
        assert match.score == 1 and text[begin:end] == QUESTION.rstrip("?") + "?"


def test_every_benchmark_is_present_or_missing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert {found.name: found.present for found in presences()} == dict.fromkeys(BENCHMARKS, False)
    assert "put its test items into" in registry.presence("agieval").reason
    stored = tmp_path / "hub" / "hub" / "datasets--cais--mmlu" / "snapshots" / "abc" / "all"
    stored.mkdir(parents=True)
    rows = [{"question": f"{QUESTION} {n}", "choices": ["no", "yes"], "answer": 1} for n in range(3)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), stored / "test-00000.parquet")
    (home / "benchmarks").mkdir(parents=True)
    (home / "benchmarks" / "math.jsonl").write_text(json.dumps({"id": 1, "question": "What is x?"}))
    found = {one.name: one for one in presences() if one.present}
    assert sorted(found) == ["math", "mmlu"] and found["mmlu"].source == "hf:cais/mmlu"
    assert registry.load(found["mmlu"])[2] == BenchmarkItem("all-00002", f"{QUESTION} 2", "yes")
    assert registry.load(found["math"]) == [BenchmarkItem("1", "What is x?")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{nope\n", "line 1: this is not JSON"),
        ('{"id": 1, "text": "x"}\n', 'line 1: a row must be an object with an "id" and a "question"'),
        ('{"id": 1, "question": "x"}\n{"id": "1", "question": "y"}\n', "two items have the id '1'"),
        ("\n", "holds no item"),
    ],
)
def test_wrong_item_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(LabError, match=message):
        reading.of_file(tmp_path / "own.jsonl")
    with pytest.raises(LabError, match="there is no file"):
        reading.of_file(tmp_path / "other.jsonl")


@pytest.fixture
def mixed(tmp_path: Path, home: Path, documents: list[str]) -> tuple[Corpus, Decontaminate]:
    """A corpus of 20 texts of which two hold the known question, and settings that look for it."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for at, text in enumerate(documents[:20]):
        held = {3: f"{text[:300]}\n{QUESTION.upper()}\n{text[300:]}", 7: f"{text}\n{QUESTION}"}.get(at, text)
        (folder / f"{at:02}.txt").write_text(held, encoding="utf-8")
    (tmp_path / "farm.jsonl").write_text(
        json.dumps({"id": KNOWN.id, "question": QUESTION}) + '\n{"id": "x", "question": "?"}'
    )
    (tmp_path / "built").mkdir()
    corpus.build([Files(folder)], tmp_path / "built")
    return Corpus(tmp_path / "built"), Decontaminate(benchmarks=("mmlu", str(tmp_path / "farm.jsonl")))


def test_step_removes_and_reports(mixed: tuple[Corpus, Decontaminate]) -> None:
    before, spec = mixed
    step = Decontamination(spec)
    after = funnel.refine(before, [step])
    (row,) = after.funnel
    counts = row["domains"]["texts"]
    assert (counts["docs_in"], counts["docs_out"]) == (20, 18) and counts["reasons"] == {"farm": 2}
    report = step.report(before)
    assert report.clean_for("farm") and report.documents == 20
    with pytest.raises(LabError, match="its items were missing"):
        report.clean_for("mmlu")
    with pytest.raises(LabError, match="was not searched for"):
        report.clean_for("gsm8k")
    text = report.text()
    assert "Paraphrases are not covered" in text and "mmlu: missing" in text and "1 of them cannot be found" in text
    contexts = sorted(found.context for found in report.rows)
    assert any(f"»{QUESTION.rstrip()}«" in one for one in contexts) and any(QUESTION.upper() in one for one in contexts)


def test_a_report_names_the_sources_of_this_corpus(mixed: tuple[Corpus, Decontaminate], tmp_path: Path) -> None:
    """The same texts from elsewhere are searched again."""
    before, spec = mixed
    (tmp_path / "moved").mkdir()
    with corpus.Writer(tmp_path / "moved") as writer:
        for document in before.documents("texts"):
            writer.add(replace(document, source=f"elsewhere/{document.source}"))
    writer.describe(before.facts["domains"])
    reports = [Decontamination(spec).report(one) for one in (before, Corpus(tmp_path / "moved"))]
    assert [row.source for row in reports[1].rows] == [f"elsewhere/{row.source}" for row in reports[0].rows]


def test_search_alone_says_what_is_not_clean(mixed: tuple[Corpus, Decontaminate]) -> None:
    before, spec = mixed
    documents = (document for domain in before.domains for document in before.documents(domain))
    found = search(documents, Library.of(spec), spec)
    assert not found.clean_for("farm") and set(found.reasons().values()) == {"farm [item farm-1]"}
    assert search([Document("d", "s", "l", "nothing here")], Library.of(spec), spec).clean_for("farm")


def test_key_follows_settings_items_and_presence(mixed: tuple[Corpus, Decontaminate], home: Path) -> None:
    _, spec = mixed
    keys = {Decontamination(spec).key(), Decontamination(spec.replace(numbers=0.5)).key()}
    (home / "benchmarks").mkdir(parents=True, exist_ok=True)
    (home / "benchmarks" / "mmlu.jsonl").write_text(json.dumps({"id": 1, "question": QUESTION}))
    keys.add(Decontamination(spec).key())
    Path(str(spec.benchmarks[1])).write_text(json.dumps({"id": 1, "question": "A question of some other words"}))
    keys.add(Decontamination(spec).key())
    assert len(keys) == 4 and Decontamination(spec).key() in keys


def test_indexes_that_do_not_fit_are_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "own.index").write_bytes(build("own", [KNOWN], "ngram13").to_bytes())
    with pytest.raises(LabError, match="set method to it"):
        Library.of(Decontaminate(benchmarks=(str(tmp_path / "own.index"),)))
    library = Library.of(Decontaminate(benchmarks=(str(tmp_path / "own.index"),), method="ngram13"))
    assert library.coverage[0].name == "own" and library.coverage[0].items == 1
    with pytest.raises(LabError, match="two of them have the name sisters"):
        (tmp_path / "sisters.jsonl").write_text(json.dumps({"id": 1, "question": QUESTION}))
        Library.of(Decontaminate(benchmarks=(OWN_TASK, str(tmp_path / "sisters.jsonl"))))
