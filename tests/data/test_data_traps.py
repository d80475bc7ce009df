"""Traps in which the field's tools were seen, on the funnel as a whole: order, workers, unused thresholds, false removals."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from plain import doc

from lablib.data import corpus, funnel
from lablib.data.corpus import Corpus
from lablib.data.dedup import NearDuplicates, RepeatedText, near_duplicates, repeats
from lablib.data.dedup.shingles import BASE
from lablib.data.documents import Document
from lablib.data.editing import Edit, every
from lablib.data.quality import PersonalData, Quality
from lablib.specs import Clean, Dedup, Repeats, Scrub

WORDS = [f"word{number}" for number in range(400)]
FOOT = "This page may be copied by anybody who keeps these words in it.\n"


def pages(seed: int = 0) -> list[Document]:
    """Sixty pages in two domains: a third near-copies of others, half with the same last line, some with an address, some
    that differ by their addresses alone, some short."""
    rng = random.Random(seed)
    made: list[Document] = []
    for number in range(60):
        body = rng.choices(WORDS, k=12 if number % 10 == 9 else 150)
        if number % 3 == 2 and made:
            body = made[rng.randrange(len(made))].text.split("\n")[0].split()
            body[rng.randrange(len(body))] = "changed"
        text = " ".join(body) + "\n" + (FOOT if number % 2 else "") + (f"mail to p{number}@example.org\n" if number % 4 == 0 else "")  # fmt: skip
        made.append(Document(f"d{number % 2}", f"s/{number}", "CC0-1.0", text))
    same = " ".join(rng.choices(WORDS, k=200))
    made += [Document("d0", f"t/{at}", "CC0-1.0", f"{same}\nsent by q{at}@example.org\n") for at in range(3)]
    return made


def stored(folder: Path, documents: list[Document]) -> Corpus:
    """A corpus of these documents in this order."""
    folder.mkdir(parents=True)
    with corpus.Writer(folder) as writer:
        for document in documents:
            writer.add(document)
    writer.describe({"d0": {}, "d1": {}})
    return Corpus(folder)


def test_neither_order_nor_workers_change_what_the_whole_funnel_leaves(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts from the same sources and the same counts, for two orders and one worker or two."""
    monkeypatch.setattr(repeats, "SIEVE", 1 << 16)
    seen = []
    for workers in (1, 2):
        monkeypatch.setenv("LAB_HOME", str(tmp_path / f"home-{workers}"))
        order = random.Random(workers).sample(pages(), 63)
        steps: list[funnel.Step | Edit] = [Quality(Clean(min_words=40)), NearDuplicates(Dedup(), workers), RepeatedText(Repeats(least=5)), PersonalData(Scrub())]  # fmt: skip
        left = funnel.refine(stored(tmp_path / f"made-{workers}", order), steps)
        counts = [(row["step"], row["domains"]) for row in left.funnel]
        seen.append((left.hash, sorted((one.source, one.text) for one in every(left)), counts))
    assert seen[0] == seen[1]
    told = {step: funnel.totals({"domains": domains}) for step, domains in seen[0][2]}
    assert told["quality"].reasons and told["near-duplicates"].reasons, "no step was idle"
    assert told["repeated text"].docs_changed and told["personal data"].docs_changed


def test_what_only_differed_by_an_address_is_one_document_after_the_scrub(tmp_path: Path, home: Path) -> None:
    (row,) = funnel.refine(stored(tmp_path / "made", pages()[-3:]), [PersonalData(Scrub())]).funnel
    assert funnel.totals(row).reasons == {"equal to another one now": 2}


@pytest.mark.parametrize("unit", ["line", "sentence", "span", "passage"])
def test_nothing_is_taken_out_of_a_corpus_without_repeats(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """dclm#83: a filter that was updated twice dropped nine tenths. With as few counters as this, all are shared."""
    monkeypatch.setattr(repeats, "SIEVE", 8)
    documents = [doc(" ".join(f"{number}x{at}" + "." * (at % 9 == 8) + "\n" * (at % 9 == 8) for at in range(120))) for number in range(40)]  # fmt: skip
    step = RepeatedText(Repeats(unit=unit, least=2))
    found = step.find(documents, step.sieve(documents))
    assert len(found) == 0 and all(step.strip(one, found).text == one.text for one in documents)
    assert near_duplicates(documents) == {}


def test_each_setting_of_repeats_is_used() -> None:
    """marin#5650: a threshold that nothing read, behind a green test. Raised step by step, each one finds strictly less."""
    lines = [" ".join(WORDS[at : at + 3 + at]) + "\n" for at in range(12)]
    documents = [doc(f"page {number}\n" + "".join(lines[number:])) for number in range(12)]
    by_least = [len(RepeatedText(Repeats(least=least, words=1)).find(documents)) for least in (2, 4, 6, 9)]
    by_words = [len(RepeatedText(Repeats(least=2, words=words)).find(documents)) for words in (1, 6, 9, 12)]
    by_length = [
        -sum(map(len, left(documents, Repeats(unit="passage", least=2, words=words)))) for words in (5, 20, 60)
    ]
    for counts in (by_least, by_words, [-size for size in by_length][::-1]):
        assert all(one > other for one, other in pairwise(counts)), counts
    one, none = (sum(map(len, left(documents, Repeats(least=2, keep_one=keep)))) for keep in (True, False))
    assert one > none


def left(documents: list[Document], spec: Repeats) -> list[str]:
    """The texts without what is repeated."""
    step = RepeatedText(spec)
    found = step.find(documents)
    return [step.strip(document, found).text for document in documents]


def test_hashes_of_windows_are_those_of_whole_numbers_without_overflow() -> None:
    """datatrove's (a h + b) mod p overflows 64 bits; here arithmetic is modulo 2^64, as Python's integers confirm."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, 50, dtype=np.uint64)
    begins, ends = np.array([0, 3, 10, 49]), np.array([1, 20, 50, 50])
    made = repeats._hashed(words, begins, ends).hashes.tolist()
    for begin, end, value in zip(begins.tolist(), ends.tolist(), made, strict=True):
        plain = sum(int(word) * BASE**place for place, word in enumerate(words[begin:end].tolist()))
        assert value == mixed((plain + end - begin) % 2**64)


def mixed(value: int) -> int:
    """SplitMix64's finaliser on a whole number."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> shift)) * factor % 2**64
    return value ^ (value >> 31)
