"""Reports: complete, sealed, and safe whatever is in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import made
import pytest

from lablib.report import export, load, verify
from lablib.report.markup import escape, json_block, tag
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Prepare, parse_recipe


class Reader(HTMLParser):
    """What a browser would make of the page: elements with attributes, and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect an element."""
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        """Collect a text."""
        self.texts.append(data)


@pytest.fixture(scope="module")
def report(chain: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the whole chain, with a hostile question."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    return export(chain, path, question=made.HOSTILE, title="Does the plan hold?")


@pytest.fixture(scope="module")
def page(report: Path) -> Reader:
    """The report, parsed."""
    reader = Reader()
    reader.feed(report.read_text(encoding="utf-8"))
    return reader


def test_it_holds_every_run_with_recipe_plan_outcome_and_hashes(report: Path, chain: list[Run]) -> None:
    """The record in the file is enough to rebuild each recipe and to check each artefact."""
    record = load(report)
    assert [run["id"] for run in record["runs"]] == [run.id for run in chain]
    for told, run in zip(record["runs"], chain, strict=True):
        recipe = parse_recipe(told["recipe"])
        assert recipe == run.recipe and told["recipe_hash"] == recipe.content_hash
        assert told["manifest"]["versions"] == run.manifest["versions"]
        assert {item["sha256"] for item in told["artefacts"]} == {item.sha256 for item in run.artefacts.values()}
        assert told["estimate"] == run.estimate and told["forecast"] == run.forecast
    assert record["runs"][1]["outcome"]["loss"] == pytest.approx(chain[1].outcome.loss)


def test_a_person_reads_what_the_record_says(page: Reader) -> None:
    """Sections in order, planned beside actual, the failure word for word, and what was not done."""
    sections = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert sections == [
        "plan",
        "outcome",
        "training",
        "data",
        "synthetic",
        "evaluation",
        "samples",
        "failures",
        "limits",
        "provenance",
        "rerun",
    ]
    text = " ".join(page.texts)
    for words in (
        "planned 20 s (16 s to 25 s)",
        "in the range",
        "public domain",
        "PSF-2.0",
        "4 of 5",
        "a price list, 2026-11",
        "▲ improvement",
        "○ no result",
        "▼ regression",
        "1 improvement, 1 regression, 1 no result",
        "most common answer on sums: 0.050",
        "2 sources",
        "One seed",
        "stopped with an error",
        "--verify-only",
    ):
        assert words in text, words
    assert text.count(made.HOSTILE.replace("\u2028", " ")) + text.count(made.HOSTILE) >= 2


def test_hostile_text_makes_no_markup(page: Reader) -> None:
    """One script runs and it is ours; nothing has an event handler; nothing points outside the file."""
    scripts = [attributes for name, attributes in page.elements if name == "script"]
    assert [attributes.get("type") for attributes in scripts] == ["application/json", "application/json", "module"]
    for name, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")], name
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/svg+xml")), attributes
        assert name not in ("iframe", "object", "embed", "link", "base", "form")


def test_the_page_forbids_itself_the_network(page: Reader) -> None:
    """A content security policy: nothing is loaded, and only the script with this hash runs."""
    policy = next(
        a["content"] for n, a in page.elements if n == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "http" not in policy


def test_escaping_can_fail() -> None:
    """The same hostile text, let through, is markup: the checks above are not vacuous."""
    reader = Reader()
    reader.feed(f"<p>{made.HOSTILE}</p>")
    assert [name for name, _ in reader.elements] == ["p", "script", "img"]
    assert escape(made.HOSTILE).count("<") == 0 and tag("p", made.HOSTILE).count("<") == 2
    inside = re.sub(r"^<script[^>]*>|</script>$", "", json_block("x", {"t": made.HOSTILE}))
    assert "<" not in inside and json.loads(inside) == {"t": made.HOSTILE}


def test_any_change_is_seen(report: Path, tmp_path: Path) -> None:
    """A number in the table, a digit in the record, a character of the script, the hash itself."""
    text = report.read_text(encoding="utf-8")
    assert len(verify(report)) == 64
    for old, new in (
        ("20 s (16 s", "19 s (16 s"),
        ('"seed":0', '"seed":1'),
        ("afterprint", "afterprimt"),
        (verify(report), "f" * 64),
    ):
        assert old in text
        changed = tmp_path / "changed.html"
        changed.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(LabError, match="not as it was written"):
            verify(changed)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """Another file, no file, a binary: one sentence each."""
    other = tmp_path / "other.html"
    other.write_text("<html></html>")
    with pytest.raises(LabError, match="not a report of the lab"):
        verify(other)
    with pytest.raises(LabError, match="cannot be read"):
        verify(tmp_path / "none.html")
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabError, match="cannot be read"):
        verify(other)


def test_an_unfinished_run_without_plan_makes_an_honest_report(tmp_path: Path) -> None:
    """Nothing measured, nothing planned: every section still says something true."""
    recorder = Recorder.create(tmp_path, Prepare(name="bare"))
    path = export(Run(recorder.path))
    assert path == recorder.path / "report" / "report.html"
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    text = " ".join(reader.texts)
    for words in (
        "had not started",
        "without an estimate",
        "0 of 1",
        "No stage of this chain logged metrics.",
        "cannot say what was read",
        "No price was registered",
    ):
        assert words in text, words
    with pytest.raises(LabError, match="at least one run"):
        export([])


def test_it_stays_small(report: Path) -> None:
    """One Vega bundle and thinned curves: under two megabytes."""
    assert report.stat().st_size < 2_000_000
