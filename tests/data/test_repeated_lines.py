"""Lines and sentences that documents share, against a counter over the words themselves."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import doc, plain_words

from lablib.data import editing
from lablib.data.dedup import RepeatedText, pieces, repeats, windows
from lablib.data.dedup.shingles import word_hashes
from lablib.data.documents import Document
from lablib.specs import LabError, Repeats

LINES = st.lists(
    st.sampled_from(["the same seven words on every page", "another line that has seven words", "", "---", "short", "ONE. Two three four five six! seven? eight nine ten"]),
    max_size=8,
).map("\n".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(LINES, min_size=1, max_size=8, unique=True),
    st.sampled_from(["line", "sentence"]),
    st.booleans(),
    st.randoms(),
)
def test_repeated_units_are_those_that_counting_finds(
    texts: list[str], unit: str, keep_one: bool, rng: random.Random
) -> None:
    """Against a counter over the words themselves; what is left joins up to the text, whatever the order."""
    step = RepeatedText(Repeats(least=2, unit=unit, words=4, keep_one=keep_one))
    documents = [doc(text) for text in texts]
    found = step.find(rng.sample(documents, len(documents)))
    units = {d.sha256: [tuple(plain_words(one)) for one in step.split(d.text)] for d in documents}
    holders: dict[tuple[str, ...], list[str]] = {}
    for sha, several in units.items():
        for words in set(several):
            holders.setdefault(words, []).append(sha)
    repeated = {words: min(shas) for words, shas in holders.items() if len(shas) >= 2 and len(words) >= 4}
    assert sorted(found.documents.tolist()) == sorted(len(holders[words]) for words in repeated)
    for document in documents:
        assert "".join(step.split(document.text)) == document.text
        seen: set[tuple[str, ...]] = set()
        left = []
        for text, words in zip(step.split(document.text), units[document.sha256], strict=True):
            home = keep_one and repeated.get(words) == document.sha256 and words not in seen
            seen.add(words)
            if words not in repeated or home:
                left.append(text)
        made = step.strip(document, found)
        assert made.text == "".join(left)
        assert sum(made.found.values()) == len(units[document.sha256]) - len(left)


def test_folding_in_between_does_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [doc(f"a line that is on all of the pages\nand one that is only on page {n}\n") for n in range(30)]
    whole = RepeatedText(Repeats(least=30, keep_one=False)).find(documents)
    monkeypatch.setattr(windows, "PENDING", 3)
    folded = RepeatedText(Repeats(least=30, keep_one=False)).find(documents[::-1])
    assert len(whole) == 1 and (whole.hashes == folded.hashes).all() and whole.documents.tolist() == [30]
    assert len(RepeatedText(Repeats(least=31, keep_one=False)).find(documents)) == 0


def test_blank_lines_and_short_ones_are_never_repeats() -> None:
    """A document that is half blank lines passes (datatrove#273 and dolma#181 counted those as duplicates)."""
    documents = [doc("\n\n    \nreturn None\n----- ----- -----\n\n" * 20 + f"page {n}") for n in range(20)]
    found = RepeatedText(Repeats(least=2, keep_one=False)).find(documents)
    assert len(found) == 0
    assert RepeatedText(Repeats(least=2, keep_one=False)).strip(documents[0], found).text == documents[0].text


def test_licences_at_the_head_of_sources_are_found() -> None:
    head = "# Licensed under the Apache License, Version 2.0 (the licence);\n"
    documents = [doc(f"{head}def f{n}(x): return x + {n} if x else f{n - 1}(x)\n") for n in range(12)]
    once = RepeatedText(Repeats(least=10))
    left = [once.strip(document, once.find(documents)).text for document in documents]
    assert sum(head in text for text in left) == 1 and all("return x" in text for text in left)


@pytest.mark.parametrize(("wrong", "words"), [({"least": 1}, "least"), ({"words": 0}, "words")])
def test_settings_of_repeats_that_cannot_work_are_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Repeats(**wrong)


def covered(texts: list[list[str]], size: int) -> list[list[bool]]:
    """Which words lie in a run of `size` words that another document has too, by looking at every run."""
    runs = [{tuple(words[at : at + size]) for at in range(len(words) - size + 1)} for words in texts]
    marks = [[False] * len(words) for words in texts]
    for number, words in enumerate(texts):
        others = set().union(*(run for at, run in enumerate(runs) if at != number))
        for at in range(len(words) - size + 1):
            if tuple(words[at : at + size]) in others:
                marks[number][at : at + size] = [True] * size
    return marks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=30), min_size=2, max_size=6, unique_by=tuple), st.integers(2, 6))  # fmt: skip
def test_passages_are_the_runs_of_words_that_another_document_has(texts: list[list[str]], size: int) -> None:
    """Against every run of words compared with every other; white space and punctuation between them play no part."""
    step = RepeatedText(Repeats(unit="passage", least=2, words=size, keep_one=False))
    documents = [doc(f"{number}: " + ",\n  ".join(words)) for number, words in enumerate(texts)]
    found = step.find(documents)
    for number, (document, marks) in enumerate(zip(documents, covered(texts, size), strict=True)):
        left = [word for word, gone in zip(texts[number], marks, strict=True) if not gone]
        assert plain_words(step.strip(document, found).text) == [str(number), *left]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=4, max_size=30), min_size=2, max_size=6, unique_by=tuple), st.randoms())  # fmt: skip
def test_of_what_is_repeated_one_copy_of_every_word_run_stays(texts: list[list[str]], rng: random.Random) -> None:
    """With `keep_one` no word is lost with all its copies, and the order plays no part."""
    step = RepeatedText(Repeats(unit="passage", least=2, words=3))
    documents = [doc(f"{number}: " + " ".join(words)) for number, words in enumerate(texts)]
    left = {one.sha256: step.strip(one, step.find(documents)).text for one in documents}
    other = step.find(rng.sample(documents, len(documents)))
    assert left == {one.sha256: step.strip(one, other).text for one in documents}
    assert set(" ".join(left.values()).split()) >= {word for words in texts for word in words}


def test_spans_are_three_sentences_wherever_they_stand() -> None:
    """C4's rule: two shared sentences stay, three go, and the third copy of them goes too."""
    one, two, three = "The first of them is here. ", "The second one follows it. ", "And this is the third of them. "
    pages = [f"A beginning. {one}{two}\n\n{three}An end.", f"Other words before. {one}{two}{three}", f"Only two: {one}{two}Something else of its own."]  # fmt: skip
    documents = [doc(page) for page in pages]
    step = RepeatedText(Repeats(unit="span", least=2, keep_one=False))
    found = step.find(documents)
    made = [step.strip(document, found) for document in documents]
    assert [one.text for one in made] == ["A beginning. An end.", "Other words before. ", pages[2]]
    assert made[0].found == {"sentences": 3} and len(found) == 1


@pytest.mark.parametrize("unit", ["line", "sentence", "span", "passage"])
def test_the_sieve_saves_memory_and_changes_nothing(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with so few counters that nearly all windows share theirs."""
    rng = random.Random(3)
    lines = [" ".join(rng.choices(["one", "two", "three", "four", "five", "six"], k=8)) + ".\n" for _ in range(40)]
    documents = [doc(f"{number}\n" + "".join(rng.sample(lines, 12))) for number in range(60)]
    step = RepeatedText(Repeats(unit=unit, least=3, words=7))
    whole = step.find(documents)
    for size in (16, 1 << 20):
        monkeypatch.setattr(repeats, "SIEVE", size)
        sieved = step.find(documents, step.sieve(documents))
        assert (sieved.hashes == whole.hashes).all() and (sieved.home == whole.home).all()
    assert len(whole) > 0 or unit == "span"


class Held:
    """A corpus in memory."""

    domains = ("d",)

    def __init__(self, texts: list[str]) -> None:
        self.all = [doc(text) for text in texts]

    def documents(self, domain: str) -> list[Document]:
        return self.all

    def bytes(self, domain: str) -> int:
        return sum(len(one.text.encode()) for one in self.all)


@pytest.mark.parametrize("unit", ["line", "sentence", "passage"])
def test_a_copy_that_is_to_stay_is_not_lost_with_a_document_that_became_short(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `keep_one` every shared line is left somewhere; planted: nearly all documents are left under 60 characters."""
    monkeypatch.setattr(repeats, "SIEVE", 1 << 10)
    monkeypatch.setattr(editing, "SHORTEST", 60)
    lines = [f"l{n}a l{n}b l{n}c l{n}d l{n}e l{n}f.\n" for n in range(12)]
    for seed in range(20):
        before = Held(["".join(random.Random(f"{seed} {n}").sample(lines, 4)) for n in range(8)])
        plan = editing.plan(before, RepeatedText(Repeats(least=2, unit=unit, words=6)))  # type: ignore[arg-type]
        left = "".join(plan.edit(one).text for one in before.all if one.sha256 not in plan.gone)
        shared = {line for line in lines if sum(line in one.text for one in before.all) >= 2}
        assert set(left.split()) >= {word for line in shared for word in line.split()}
        assert all(left.count(line.split()[0]) == 1 for line in shared) and len(plan.gone) < len(before.all)


SIGNS = "ab.!? \t\n\r\x1c\u00a0\u3000。！？\u0308e\u200dß1-"
ENDS = {
    "line": r"(?<=\n)",
    "sentence": r"(?<=\n)|(?<=[.!?])(?=[ \t])|(?<=[。！？])",
    "passage": r"(?<=\s)(?=\S)",
}


@settings(max_examples=200, deadline=None)
@given(st.text(SIGNS, max_size=60), st.sampled_from(sorted(ENDS)))
def test_pieces_end_where_the_expressions_say(text: str, unit: str) -> None:
    """Against regular expressions; laid out together, pieces have the words that each has alone."""
    cut = [piece for piece in re.split(ENDS[unit], text) if piece]
    places = pieces.ends(text, unit)
    assert pieces.cut(text, places) == cut and RepeatedText(Repeats(unit=unit)).split(text) == cut
    laid = pieces.lay_out(["one, two", text], [pieces.ends("one, two", unit), places])
    alone = [word_hashes([piece]).hashes.tolist() for piece in cut]
    begin = int(np.count_nonzero(laid.texts == 0))
    made = [laid.words[at:to].tolist() for at, to in itertools.pairwise(laid.offsets.tolist())]
    assert made[begin:] == alone


@pytest.mark.parametrize("unit", ["line", "passage"])
def test_a_line_longer_than_is_hashed_in_one_go_is_the_same_wherever_it_stands(unit: str) -> None:
    long = "x1-" * 30_000 + " and then\n"
    documents = [doc(long), doc("words before it, é\n" + long), doc("others\n" * 9 + long)]
    step = RepeatedText(Repeats(unit=unit, least=3, words=1 if unit == "line" else 40, keep_one=False))
    left = [step.strip(one, step.find(documents)).text for one in documents]
    assert left == ["", "words before it, é\n", "others\n" * 9] or unit == "passage"
    assert all(len(one) < 100 for one in left)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of documents that are looked at together are those of each alone."""
    documents = [doc(f"{text}\nAnd {number}. A third. Four!") for number, text in enumerate(plain.repository()[:12])]
    for unit in ("line", "span", "passage"):
        step = RepeatedText(Repeats(unit=unit, least=2, words=9 if unit == "passage" else None))
        found = []
        for size in (1, 5000, 1 << 20):
            monkeypatch.setattr(repeats, "BATCH", size)
            found.append(step.find(documents))
        assert all((one.hashes == found[0].hashes).all() and (one.home == found[0].home).all() for one in found)
        seen = {one for document in documents for one in step.windows(document.text).hashes.tolist()}
        assert seen >= set(found[0].hashes.tolist()) and (len(found[0]) or unit == "span")
