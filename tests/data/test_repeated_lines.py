"""Lines and sentences that documents share, against a counter over the words themselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import doc, plain_words

from lablib.data.dedup import (
    RepeatedLines,
    repeats,
)
from lablib.specs import LabError

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
    step = RepeatedLines(least=2, unit=unit, words=4, keep_one=keep_one)  # type: ignore[arg-type]
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
        assert made.text == "".join(left) and made.units == len(units[document.sha256]) - len(left)
        assert made.characters == len(document.text) - len(made.text)


def test_folding_in_between_does_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [doc(f"a line that is on all of the pages\nand one that is only on page {n}\n") for n in range(30)]
    whole = RepeatedLines(least=30).find(documents)
    monkeypatch.setattr(repeats, "PENDING", 3)
    folded = RepeatedLines(least=30).find(documents[::-1])
    assert len(whole) == 1 and (whole.hashes == folded.hashes).all() and whole.documents.tolist() == [30]
    assert len(RepeatedLines(least=31).find(documents)) == 0


def test_blank_lines_and_short_ones_are_never_repeats() -> None:
    """A document that is half blank lines passes (datatrove#273 and dolma#181 counted those as duplicates)."""
    documents = [doc("\n\n    \nreturn None\n----- ----- -----\n\n" * 20 + f"page {n}") for n in range(20)]
    found = RepeatedLines(least=2).find(documents)
    assert len(found) == 0
    assert RepeatedLines(least=2).strip(documents[0], found).text == documents[0].text


def test_licences_at_the_head_of_sources_are_found() -> None:
    head = "# Licensed under the Apache License, Version 2.0 (the licence);\n"
    documents = [doc(f"{head}def f{n}(x): return x + {n} if x else f{n - 1}(x)\n") for n in range(12)]
    once = RepeatedLines(least=10, keep_one=True)
    left = [once.strip(document, once.find(documents)).text for document in documents]
    assert sum(head in text for text in left) == 1 and all("return x" in text for text in left)


@pytest.mark.parametrize(("wrong", "words"), [({"least": 1}, "use 2 or more"), ({"words": 0}, "blank lines")])
def test_settings_of_repeats_that_cannot_work_are_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(LabError, match=words):
        RepeatedLines(**wrong)  # type: ignore[arg-type]
