"""An edit carried out part by part leaves what `lablib.data.editing.plan` leaves of the whole corpus."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import write

from lablib.data import funnel
from lablib.data.corpus import Corpus
from lablib.data.dedup import RepeatedText, repeats, rounds
from lablib.data.documents import Document, silent
from lablib.data.quality.pii import PersonalData
from lablib.data.scale import Team, corpora, edits, steps
from lablib.specs import digest
from lablib.specs.cleaning import Scrub
from lablib.specs.dedup import Repeats

LINES = [
    "this line is on many of the pages here",
    "and so is that other one, say all of them",
    "a third one that is told again and again",
    "write to anna.berg@example.org for more of it",
    "write to carl.dahl@example.com for more of it",
    "<email> is what a scrubbed text has of it, and more",
    "short",
]
STEPS = (RepeatedText(Repeats(unit="line", least=2)), RepeatedText(Repeats(unit="passage", least=2, words=6, keep_one=False)), PersonalData(Scrub()))  # fmt: skip


def content(found: Corpus) -> tuple[object, ...]:
    documents = [(domain, one) for domain in found.domains for one in found.documents(domain)]
    samples = [(found.folder / name).read_text() for name in ("dropped.jsonl", "changed.jsonl")]
    return documents, found.facts, samples


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 9), min_size=1, max_size=4)), min_size=3, max_size=14),
       st.lists(st.integers(1, 13), min_size=1, max_size=4), st.sampled_from([2, 100]))  # fmt: skip
def test_edits_in_parts_are_the_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[tuple[str, list[int]]], cuts: list[int], bucket: int
) -> None:
    """Texts, counts, samples and reasons, for any documents and any cut, with texts that become equal or too short."""
    drawn = list({tuple(lines) if max(lines) < len(LINES) else place: (domain, lines) for place, (domain, lines) in enumerate(drawn)}.values())  # fmt: skip
    texts = ["\n".join(LINES[n] if n < len(LINES) else f"only page {place} has this line {n} of it" for n in lines) + "\n" for place, (_, lines) in enumerate(drawn)]  # fmt: skip
    documents = [Document(domain, f"s/{place}", "MIT", text) for place, ((domain, _), text) in enumerate(zip(drawn, texts, strict=True))]  # fmt: skip
    folder = tmp_path / digest([texts, [one for one, _ in drawn], cuts, bucket])
    monkeypatch.setenv("LAB_HOME", str(folder / "home"))
    monkeypatch.setattr(corpora, "BUCKET", bucket)
    monkeypatch.setattr(repeats, "SIEVE", 64)
    ends = sorted({0, len(documents), *(one for one in cuts if one < len(documents))})
    parts = [write(folder / f"part-{begin:05}", documents[begin:end]) for begin, end in pairwise(ends)]
    whole = Corpus(write(folder / "whole", documents))
    joined = Corpus(corpora.join(parts, digest([str(folder)]), Team()))
    for step in STEPS:
        one = folder / f"one-{step.name}-{digest(step.key())}"
        one.mkdir(exist_ok=True)
        funnel.apply(whole, step, one)
        left, right = content(Corpus(one)), content(steps.refine(joined, step, Team()))
        for here, there in zip(left, right, strict=True):
            assert here == there


def test_counters_of_parts_add_up_to_those_of_the_whole_and_stay_full(tmp_path: Path) -> None:
    kind = rounds.Sieving(RepeatedText(Repeats()))
    seen = [np.array(one, np.uint8) for one in ([0, 1, 200, 255], [0, 2, 54, 255], [0, 3, 9, 1])]
    for number, one in enumerate(seen):
        (tmp_path / str(number)).mkdir()
        rounds._save(one, tmp_path / str(number))
    (tmp_path / "sum").mkdir()
    kind.gather([tmp_path / str(number) for number in range(3)], tmp_path / "sum")
    assert rounds.counters(tmp_path / "sum").tolist() == [0, 6, 255, 255]


def test_the_unedited_one_of_equal_texts_stays_else_that_of_the_least_name(tmp_path: Path) -> None:
    """By hand, over two parts: rows are (before, after, fate)."""
    told = [
        [(9, 5, edits.CHANGED), (5, 5, edits.SAME), (8, 7, edits.CHANGED)],
        [(6, 7, edits.CHANGED), (2, 2, edits.SHORT), (1, 5, edits.CHANGED), (4, 4, edits.SAME)],
    ]
    folders = []
    for number, rows in enumerate(told):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        for name, values in zip(("before", "after"), zip(*[row[:2] for row in rows], strict=True), strict=True):
            np.save(folders[-1] / f"{name}.npy", np.repeat(np.array(values, np.uint8)[:, None], 32, axis=1))
        np.save(folders[-1] / "fates.npy", np.array([row[2] for row in rows], np.uint8))
    (tmp_path / "equal").mkdir()
    edits._settled(tmp_path / "equal", silent, folders)
    pairs = [sorted(np.load(tmp_path / "equal" / f"{number}.npy")[:, :, 0].tolist()) for number in range(2)]
    assert pairs == [[[8, 6], [9, 5]], [[1, 5]]]


def test_another_cut_does_not_take_up_the_choice_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same documents in other parts have the same identity, and what was chosen lies by part."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    anna, carl, none = (Document("a", f"s/{n}", "MIT", f"{LINES[n]}, for more and more") for n in (3, 4, 0))
    cuts = [[anna], [carl, none]], [[carl, none], [anna]]
    joined = []
    for number, cut in enumerate(cuts):
        parts = [write(tmp_path / f"{number}-{n}", documents) for n, documents in enumerate(cut)]
        joined.append(Corpus(corpora.join(parts, digest([number]), Team())))

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edits, "_written", killed)
        with pytest.raises(KeyboardInterrupt):
            steps.refine(joined[0], PersonalData(Scrub()), Team())
    left = steps.refine(joined[1], PersonalData(Scrub()), Team())
    assert joined[0].identity == joined[1].identity
    assert sorted(one.text for one in left.documents("a")) == [none.text, anna.text.replace("anna.berg@example.org", "[EMAIL]")]  # fmt: skip
