"""The catalogue of public sources: everything that the guide names is there, and every figure says where it was read."""

from __future__ import annotations

import json
import re

import pytest

from lab.__main__ import main
from lablib.data.catalogue import sources_of
from lablib.data.sources.hub import Hub
from lablib.specs import LabError
from lablib.specs.mixtures import mixtures
from lablib.specs.sources import PublicSource, sources

NAMED = {
    "§3.1": ("OpenMathInstruct", "ProofPile", "FineMath", "MADLAD-400", "CulturaX", "Synthetic"),
    "§3.2": ("CommonCrawl", "FineWeb-Edu", "DCLM", "RedPajama-v2"),
    "§22 and its references": ("FineWeb", "DCLM", "Dolma", "RefinedWeb", "Common Crawl"),
}
"""What the guide's text names, by section."""


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@pytest.mark.parametrize(("section", "name"), [(s, n) for s, names in NAMED.items() for n in names])
def test_what_the_guide_names_is_in_the_catalogue(section: str, name: str) -> None:
    known = {plain(one.name) for one in sources.values()} | {plain(one.kind) for one in sources.values()}
    assert plain(name) in known, section


@pytest.mark.parametrize("kind, shares", [("math", (2, 5)), ("multilingual", (10, 30)), ("synthetic", (5, 30))])
def test_shares_are_those_of_the_guide(kind: str, shares: tuple[float, float]) -> None:
    found = [one for one in sources.values() if one.kind == kind]
    assert len(found) >= 2 and all(one.shares == shares and "guide §3.1" in one.share_source for one in found)


@pytest.mark.parametrize("one", sources.values(), ids=lambda one: one.name)
def test_figures_are_dated_or_said_to_be_second_hand_or_unverified(one: PublicSource) -> None:
    for figure in (one.tokens, one.bytes, one.documents):
        if figure is not None and figure.level == "paper":
            assert re.search(r"read 20\d\d-\d\d-\d\d", figure.source), one.name
    if one.address:
        (source,) = sources_of(one.address, 1_000_000)
        assert isinstance(source, Hub) and "/" in source.name
    told = one.facts()
    assert ("not verified" in told["licence"]) == (one.licence_level == "memory")


def test_figures_agree_with_the_published_mixtures_and_funnels() -> None:
    pool = mixtures["olmo3"].pool_tokens
    for name, domain in (("wikipedia", "Wikipedia"), ("arxiv", "arXiv"), ("stack-edu", "Stack-Edu")):
        figure = sources[name].tokens
        assert figure and figure.value == pool[domain]
    dolma = sources["dolma-3"].tokens
    assert dolma and dolma.value == pytest.approx(sum(pool.values()), rel=1e-3)
    pdfs = sources["finepdfs"]
    assert pdfs.tokens and pdfs.documents and pdfs.tokens.value == pytest.approx(3509 * pdfs.documents.value, rel=1e-3)


def test_a_row_without_a_way_to_read_it_or_with_a_wrong_share_is_refused() -> None:
    row = sources["fineweb"].model_dump()
    for change, message in (({"address": ""}, "give an address"), ({"shares": (30, 10)}, "smaller first"), ({"share_source": ""}, "say where")):  # fmt: skip
        with pytest.raises(LabError, match=message):
            PublicSource(**{**row, **change})


def test_the_command_line_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "sources", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(sources)
    assert main(["data", "sources", "finemath"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ODC-By" in said and "hf:HuggingFaceTB/finemath" in said and "read 2026-11-26" in said
    assert main(["data", "sources"]) == 0 and "culturax" in capsys.readouterr().out
    assert main(["data", "sources", "finewebb"]) == 2 and "fineweb" in capsys.readouterr().err
