"""The funnel as a whole: what goes in is what stays and what was dropped, whatever was killed and begun again."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lablib.data import cache, corpus, funnel, samples, shards
from lablib.data.contamination import Report
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, silent
from lablib.data.documents import Report as Progress
from lablib.data.editing import Edited, every
from lablib.data.prepare import prepare
from lablib.data.quality import classifier
from lablib.data.quality.classifier import train
from lablib.data.tasks import split_items
from lablib.runs import Recorder
from lablib.specs import Clean, Decontaminate, Dedup, LabError, Prepare, Repeats, Scrub, Task

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "it",
    "with",
    "as",
    "for",
    "was",
    "on",
    "be",
    "by",
    "this",
    "are",
    "from",
    "at",
    "which",
    "have",
    "not",
    "they",
    "one",
    "all",
]


class Drop:
    """Drops documents whose text begins with a letter, and remembers how often it was asked."""

    def __init__(self, letter: str, breaks: bool = False) -> None:
        self.letter, self.breaks, self.asked = letter, breaks, 0

    @property
    def name(self) -> str:
        return f"no {self.letter}"

    def key(self) -> str:
        return self.letter

    def decide(self, before: Corpus, report: Progress = silent) -> Mapping[str, str]:
        self.asked += 1
        every = [document for domain in before.domains for document in before.documents(domain)]
        if self.breaks:
            raise KeyboardInterrupt
        return {one.sha256: f"begins with it [{one.text[:3]}]" for one in every if one.text.startswith(self.letter)}


@pytest.fixture
def built(tmp_path: Path, home: Path) -> Corpus:
    folder = tmp_path / "made"
    folder.mkdir()
    writer = corpus.Writer(folder)
    with writer:
        for number in range(60):
            text = f"{'abc'[number % 3]}{number} " + " ".join(WORDS)
            writer.add(Document(f"d{number % 2}", f"s/{number}", "CC0-1.0", text))
    writer.describe({"d0": {}, "d1": {}})
    return Corpus(folder)


def test_every_step_counts_what_it_kept_and_dropped_by_domain_and_reason(built: Corpus) -> None:
    left = funnel.refine(built, [Drop("a"), Drop("b")])
    first, second = map(funnel.totals, left.funnel)
    assert (first.docs_in, first.docs_out, second.docs_in, second.docs_out) == (60, 40, 40, 20)
    assert first.reasons == {"begins with it": 20} and second.bytes_in == first.bytes_out
    size = sum(len(one.text.encode()) for domain in left.domains for one in left.documents(domain))
    assert second.bytes_out == size == sum(left.bytes(domain) for domain in left.domains)
    assert left.facts["domains"]["d0"]["sources"][0]["licence"] == "CC0-1.0"


def test_samples_are_those_of_the_smallest_hashes_with_the_reason_in_full(built: Corpus) -> None:
    left = funnel.refine(built, [Drop("a")])
    rows = [json.loads(line) for line in (left.folder / "dropped.jsonl").read_text().splitlines()]
    gone = sorted(one.sha256 for domain in built.domains for one in built.documents(domain) if one.text[0] == "a")
    assert sorted(row["sha256"] for row in rows) == gone[: samples.SAMPLES]
    assert rows[0]["reason"].startswith("begins with it [a") and rows[0]["source"].startswith("s/")


def test_a_step_that_was_made_is_not_asked_again_and_one_that_was_interrupted_is(built: Corpus) -> None:
    done, torn = Drop("a"), Drop("b", breaks=True)
    with pytest.raises(KeyboardInterrupt):
        funnel.refine(built, [done, torn])
    again = Drop("b")
    left = funnel.refine(built, [done, again])
    assert (done.asked, again.asked) == (1, 1)
    assert funnel.refine(built, [done, Drop("b")]).folder == left.folder
    assert len(left.funnel) == 2, "counted once, whatever was begun before"
    assert not [path for path in cache.folder("corpora", "x").parent.glob(".*") if path.is_dir()]


def test_a_recipe_cleans_and_removes_near_duplicates_on_the_way_to_its_shards(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    files = sorted(Path(__file__).parents[1].rglob("*.py"))[:40]
    for number, file in enumerate(files):
        (source / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (source / "copy.txt").write_text(files[0].read_text(encoding="utf-8") + "\nassert True\n", encoding="utf-8")
    (source / "junk.txt").write_text("#### " * 400, encoding="utf-8")
    recipe = Prepare(corpus=str(source), vocab=512, heldout=0.2, clean=Clean(min_words=60), dedup=Dedup())
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    card = shards.manifest(run.path / "data")
    quality, near = map(funnel.totals, card["funnel"])
    assert (
        quality.docs_in == len(files) + 2 and sum(quality.reasons.values()) == quality.docs_in - quality.docs_out >= 1
    )
    assert near.reasons["near-duplicate"] >= 1 and near.docs_in == quality.docs_out
    assert sum(shard["docs"] for shard in card["shards"]) == near.docs_out
    names = sorted(path.name for path in (run.path / "dropped").iterdir())
    assert names == ["1-quality.jsonl", "2-near-duplicates.jsonl"]
    assert any(
        "copy.txt" in line or "0.txt" in line for line in (run.path / "dropped" / names[1]).read_text().splitlines()
    )


def test_a_funnel_that_leaves_nothing_says_where_it_went(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    (source / "one.txt").write_text("a short text of a few words, longer than thirty-two characters")
    recipe = Prepare(corpus=str(source), vocab=300, clean=Clean(min_words=1000))
    with pytest.raises(LabError, match=r"No document is left \(quality left 0\)"):
        prepare(recipe, Recorder.create(tmp_path / "runs", recipe))


def test_a_recipe_takes_out_documents_that_hold_its_tasks_test_items(tmp_path: Path, home: Path) -> None:
    task = Task(name="siblings", generator="aiw", params={"task_type_weights": [1.0, 0.0, 0.0], "max_entities": 6}, train=20, test=10)  # fmt: skip
    source = tmp_path / "texts"
    source.mkdir()
    for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))[:12]):
        (source / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    question = split_items(task, "test")[0].question
    (source / "leak.txt").write_text(f"Notes of a quiet afternoon, with a riddle. {question.upper()} So it went on.")
    recipe = Prepare(corpus=str(source), vocab=400, heldout=0.2, decontaminate=Decontaminate(benchmarks=(task, "mmlu")))
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    (row,) = shards.manifest(run.path / "data")["funnel"]
    assert funnel.totals(row).reasons == {"siblings": 1}
    told = Report.load(run.path / "contamination")
    assert told.rows[0].source.endswith("leak.txt") and told.clean_for("siblings")
    with pytest.raises(LabError, match="Nothing can be said about 'mmlu'"):
        told.clean_for("mmlu")


def test_a_bound_on_the_score_has_the_classifier_learned_or_says_what_is_missing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for name, text in (("letter", "Dear friend, the garden is in bloom and the meeting about the roof is on Tuesday."), ("advert", "BUY NOW cheap pills free money click here to win a prize, limited offer, act now!")):  # fmt: skip
        (source / f"{name}.txt").write_text(text * 3)
    recipe = Prepare(corpus=str(source), vocab=300, heldout=0.2, clean=Clean(min_quality=0.5))
    texts = [
        (source / f"{name}.txt").read_text() + f" {number}" for number in range(8) for name in ("letter", "advert")
    ]
    made = train(texts, [number % 2 == 0 for number in range(16)])
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(classifier, "learned", lambda source, good: (asked.append((type(source).__name__, good)), made)[1:] * 2)  # fmt: skip
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    (row,) = shards.manifest(run.path / "data")["funnel"]
    assert asked == [("Mail", "ham")] and funnel.totals(row).reasons == {"classifier: low score": 1}
    monkeypatch.undo()
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("lablib.data.sources.mail.Mail.unavailable", lambda self: "there is no npm")
    with pytest.raises(LabError, match="labelled documents cannot be had: there is no npm"):
        prepare(recipe, Recorder.create(tmp_path / "runs", recipe))


# -- steps that edit ------------------------------------------------------------------------------------------------


class Cut:
    """Takes out the words in brackets."""

    name = "no brackets"

    def key(self) -> str:
        return "1"

    looks = ()

    def edits(self, before: Corpus, report: Progress = silent) -> Callable[[Document], Edited]:
        return self.informed()

    def informed(self, seen: Sequence[Path] = (), known: Sequence[Path] = ()) -> Callable[[Document], Edited]:
        def edit(document: Document) -> Edited:
            text, times = re.subn(r" \[.*?\]", "", document.text)
            return Edited(text, {"brackets": times})

        return edit


def stored(folder: Path, texts: Sequence[str]) -> Corpus:
    """A corpus of these texts in two domains, in this order."""
    folder.mkdir(parents=True)
    writer = corpus.Writer(folder)
    with writer:
        for number, text in enumerate(texts):
            writer.add(Document(f"d{number % 2}", f"s/{number}", "CC0-1.0", text))
    writer.describe({"d0": {}, "d1": {}})
    return Corpus(folder)


PLAIN = "a text of more than thirty-two characters, number"
EDITED = [f"{PLAIN} 1", f"{PLAIN} 1 [x]", f"{PLAIN} 2 [é]", f"{PLAIN} 2 [z]", f"{PLAIN} 3 [w] [w]", "short [but long enough before the cut]", f"{PLAIN} 4"]  # fmt: skip


def test_an_edit_counts_what_it_changed_and_whom_it_left_too_little(tmp_path: Path, home: Path) -> None:
    """By hand: of the two 1s the unedited one stays, of the 2s one, the short one goes, the 3 loses two brackets."""
    left = funnel.refine(stored(tmp_path / "a", EDITED), [Cut()])
    (row,) = left.funnel
    told = funnel.totals(row)
    assert (told.docs_in, told.docs_out, told.docs_changed) == (7, 4, 2)
    assert told.reasons == {"equal to another one now": 2, "under 32 characters are left": 1}
    twos = [text for text in EDITED if " 2 " in text]
    kept = min(twos, key=lambda text: Document("", "", "", text).sha256)
    assert told.edits == {"brackets": 3} and told.chars_cut == 4 + 8
    assert told.bytes_cut == 8 + (5 if "é" in kept else 4)
    texts = sorted(one.text for one in every(left))
    assert texts == [f"{PLAIN} {number}" for number in (1, 2, 3, 4)]
    assert told.bytes_out == sum(len(text.encode()) for text in texts) == sum(map(left.bytes, left.domains))
    assert told.bytes_in - told.bytes_out == told.bytes_cut + sum(
        len(row["text"].encode()) for row in lines_of(left.folder / "dropped.jsonl")
    )
    shown = lines_of(left.folder / "changed.jsonl")
    assert sorted(row["after"] for row in shown) == texts[1:3] and all("[" in row["before"] for row in shown)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(5))
def test_what_an_edit_leaves_does_not_depend_on_the_order(tmp_path: Path, home: Path, seed: int) -> None:
    """The same texts, each from the same document, of the domains shuffled together."""
    texts = random.Random(seed).sample(EDITED, len(EDITED))
    left = funnel.refine(stored(tmp_path / "b", texts), [Cut()])
    known = {f"s/{number}": text for number, text in enumerate(texts)}
    survivors = {known[one.source] for one in every(left)}
    twos = min((text for text in EDITED if " 2 " in text), key=lambda text: Document("", "", "", text).sha256)
    assert survivors == {EDITED[0], twos, EDITED[4], EDITED[6]}
    assert funnel.refine(left, [Cut()]).hash == left.hash


def test_a_recipe_edits_on_the_way_to_its_shards_and_keeps_samples(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for number in range(12):
        words = random.Random(number).choices(WORDS, k=120)
        (source / f"{number}.txt").write_text(f"All rights are reserved by the people of this page.\n{' '.join(words)}\nwrite to p{number}@example.org now\n")  # fmt: skip
    steps = {"repeats": Repeats(unit="line", least=10), "scrub": Scrub()}
    recipe = Prepare(corpus=str(source), vocab=300, heldout=0.2, **steps)
    assert recipe.science_hash != (plain := Prepare(corpus=str(source), vocab=300, heldout=0.2)).science_hash
    assert not {"repeats", "scrub"} & set(plain.science())
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    repeats, personal = map(funnel.totals, shards.manifest(run.path / "data")["funnel"])
    assert repeats.edits == {"lines": 11} and repeats.docs_changed == 11 and repeats.chars_cut == 11 * 52
    assert personal.edits == {"emails": 12} and personal.docs_changed == 12
    rows = lines_of(run.path / "changed" / "2-personal-data.jsonl")
    assert len(rows) == 12 and all("[EMAIL]" in row["after"] and "@example" in row["before"] for row in rows)
    assert sorted(path.name for path in (run.path / "dropped").iterdir()) == ["1-repeated-text.jsonl", "2-personal-data.jsonl"]  # fmt: skip
