"""Long documents: the same ones for any cut into parts, against a plain grouping; nothing of a text is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import write

from lablib.data import funnel
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.joining import BETWEEN, JOINED, SHORT, Joining, together
from lablib.data.packing import pack
from lablib.data.scale import Team, corpora, steps
from lablib.specs import Join, LabError, digest


def plainly(documents: list[Document], spec: Join) -> list[str]:
    """Texts of a domain, by the description: neighbours of one folder, until the next would be too much."""
    found: list[tuple[str, list[str]]] = []
    for one in documents:
        parts = one.source.split("/")
        name = "/".join(parts[: spec.folders]) if len(parts) > spec.folders else ""
        if name and found and found[-1][0] == name and len("\n\n".join([*found[-1][1], one.text])) <= spec.max_bytes:
            found[-1][1].append(one.text)
        else:
            found.append((name, [one.text]))
    texts = [BETWEEN.join(text.strip("\n") for text in group) + "\n" if len(group) > 1 else group[0] for _, group in found]  # fmt: skip
    return [text for text in texts if len(text) >= (spec.min_bytes or 0)]


def content(found: Corpus) -> tuple[object, ...]:
    documents = [(domain, one) for domain in found.domains for one in found.documents(domain)]
    return documents, found.facts, (found.folder / "dropped.jsonl").read_text()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["long", "long", "other"]), st.sampled_from(["b/one", "b/two", "b", "b/one/deep"])), min_size=2, max_size=14),
       st.lists(st.integers(1, 13), min_size=1, max_size=5), st.sampled_from([60, 130, 4000]), st.sampled_from([None, 50]))  # fmt: skip
def test_any_cut_gives_the_same_long_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[tuple[str, str]], cuts: list[int], most: int, least: int | None) -> None:  # fmt: skip
    documents = [Document(domain, f"{folder}/{n}.txt", "MIT", f"Text {n} is of {folder}, as it has to be." + "\n" * (n % 3)) for n, (domain, folder) in enumerate(drawn)]  # fmt: skip
    folder = tmp_path / digest([drawn, cuts, most, least])
    if folder.exists():
        return
    monkeypatch.setenv("LAB_HOME", str(folder / "home"))
    step = Joining(Join(domains=("long",), max_bytes=most, min_bytes=least))
    ends = sorted({0, len(documents), *(one for one in cuts if one < len(documents))})
    parts = [write(folder / f"part-{begin:05}", documents[begin:end]) for begin, end in pairwise(ends)]
    whole = steps.refine(Corpus(write(folder / "whole", documents)), step, Team())
    joined = steps.refine(Corpus(corpora.join(parts, digest([str(folder)]), Team())), step, Team())
    if len(parts) > 1:
        assert joined.folder == whole.folder, "one product, by content"
        monkeypatch.setenv("LAB_HOME", str(folder / "home2"))
        joined = steps.refine(Corpus(corpora.join(parts, digest([str(folder)]), Team())), step, Team())
        assert content(joined) == content(whole)
    mine = [one for one in documents if one.domain == "long"]
    if mine:
        found = [one.text for one in whole.documents("long")] if "long" in whole.domains else []
        assert found == plainly(mine, step.spec)
    assert [one for one in documents if one.domain == "other"] == list(whole.documents("other"))
    count = funnel.totals(whole.funnel[-1])
    assert count.docs_in == len(documents) == count.docs_out + sum(count.reasons.values())
    assert set(count.reasons) <= {JOINED, SHORT}


def test_provenance_of_the_parts_is_told_of_the_whole() -> None:
    one = Document("d", "b/x/1", "MIT", "abc\n", url="u", time="2020", synthetic=1.0, generation=2)
    other = Document("d", "b/x/2", "Apache-2.0", "\ndefghi", url="v", time="2020")
    made = together([one, other], "b/x")
    assert (made.text, made.source, made.licence) == ("abc\n\ndefghi\n", "b/x", "Apache-2.0 AND MIT")
    assert together([one, replace(other, licence="MIT OR X")], "b/x").licence == "(MIT OR X) AND MIT"
    assert together([replace(one, licence="A OR B")] * 2, "b/x").licence == "A OR B"
    assert (made.url, made.time, made.generation) == ("", "2020", 2) and made.synthetic == pytest.approx(1 / 3)


def test_windows_of_a_joined_book_are_full_where_those_of_its_chapters_hold_many() -> None:
    """Twelve chapters of 100 tokens in windows of 400: joined, each window is one stretch of the book."""
    lengths = np.full(12, 100)
    chapters = pack(np.cumsum(lengths) - lengths, lengths, 400)
    book = pack(np.array([0]), np.array([1200]), 400)
    assert len(chapters.lengths) == 12 and max(chapters.lengths) == 100
    assert sorted(book.lengths.tolist())[-2:] == [400, 400]


def test_a_floor_above_the_ceiling_is_refused() -> None:
    with pytest.raises(LabError, match="nothing would stay"):
        Join(min_bytes="2MB", max_bytes="1MB")  # type: ignore[arg-type]
