"""What a model wrote, on a screen and in a report: the counts are the files', and its text is only ever shown."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import lines

from lablib.explorers import Written
from lablib.posttrain import synthesize as stage
from lablib.report import export, load
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Prepare, Synthesize

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


def page(number: int) -> str:
    """Forty words that no other page has."""
    return " ".join(f"word{byte}-{number}" for byte in hashlib.sha512(str(number).encode()).digest()[:40])


def said(number: int) -> str:
    """What the model is made to say: its own likeliest words over and over, nothing, or something hostile."""
    return "short" if number % 4 == 0 else f"{HOSTILE} {number}" if number == 1 else f"the the of {number} " * 30


@pytest.fixture
def run(tiny: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run of twelve prompts, every fourth of which is refused."""
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps({"text": page(n)}) for n in range(12)))
    monkeypatch.setattr(stage, "generate", lambda *args: [said(number) for number in range(len(args[2]))])
    recipe = Synthesize(model=str(tiny), data=str(tmp_path / "pages.jsonl"), count=12, prompt_tokens=8, trained_on=0, drift=0.2)  # fmt: skip
    with Recorder.create(tmp_path / "runs", recipe).working() as made:
        torch.set_num_threads(1)
        stage.synthesize(recipe, made)
    return Run(made.path)


def test_the_screen_counts_what_the_files_hold(run: Run) -> None:
    view = Written(run=str(run.path)).view()
    told = {one.label: (one.value, one.note) for one in view.headlines}
    kept = lines(run.path / "corpus" / "documents.jsonl")
    assert told["Kept"][0] == f"{len(kept)}" == "9" and told["Kept"][1].startswith("of 12 completions")
    assert view.frames["written"] == {"fate": ["kept", "too short"], "completions": [9, 3], "kept": [True, False]}
    assert told["Diversity"][0].startswith("alarm: −") and told["Generation"] == ("1", "its model learned from generation 0")  # fmt: skip
    pages = [Written(run=str(run.path), page=page).view().tables[-1].rows for page in (1, 2, 3)]
    assert [len(rows) for rows in pages] == [6, 3, 0]
    assert [row[2] for rows in pages for row in rows] == [" ".join(row["text"][:280].split()) for row in kept]
    refused = Written(run=str(run.path), kind="refused").view().tables[-1].rows
    assert refused == (("too short", "short"),) * 3


def test_the_alarm_follows_the_knob_and_the_recipe_the_screen(run: Run) -> None:
    loose = Written(run=str(run.path), drift=0.95)
    assert loose.recipe == run.recipe.replace(drift=0.95)
    strict, beside = (next(table for table in Written(run=str(run.path), drift=drift).view().tables if table.columns[0] == "measure") for drift in (0.95, 0.1))  # fmt: skip
    assert sum(row[-1] == "alarm" for row in strict.rows) < sum(row[-1] == "alarm" for row in beside.rows) == 4


def test_the_screen_begins_at_the_runs_own_drift(run: Run, tmp_path: Path) -> None:
    """Its alarms are then those that the run itself raised, and its recipe is the run's."""
    begun = Written.of(run)
    assert begun.drift == 0.2 != Written(run=str(run.path)).drift and begun.recipe == run.recipe
    raised = json.loads((run.path / "corpus" / "manifest.json").read_text())["diversity"]["alarms"]
    [rows] = [table.rows for table in begun.view().tables if table.columns[0] == "measure"]
    assert {row[0] for row in rows if row[-1] == "alarm"} == {one["measure"] for one in raised}
    wide = Recorder.create(tmp_path / "runs", run.recipe.replace(drift=0.999)).path
    assert Written.of(Run(wide)).drift == 0.95, "a knob has an end"
    with pytest.raises(LabError, match="give a synthesize run"):
        Written.of(Run(Recorder.create(tmp_path / "runs", Prepare(corpus="core")).path))


class Reader(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, name: str, attributes: Any) -> None:
        """Collect it."""
        self.names.append(name)

    def handle_data(self, data: str) -> None:
        """Collect it."""
        self.texts.append(data)


def test_the_report_shows_the_text_and_runs_none_of_it(run: Run, tmp_path: Path) -> None:
    path = export(run, tmp_path / "report.html")
    told = load(path)["runs"][0]["synthetic"]
    assert told["written"] == json.loads((run.path / "corpus" / "manifest.json").read_text())
    assert [len(told[name]) for name in ("kept", "refused")] == [3, 3]
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.names.count("script") == 3 and "onerror" not in " ".join(reader.names)
    text = " ".join(reader.texts)
    for words in (HOSTILE, "too short 3", "9 (", "alarm: −", "First completions that were refused: 3"):
        assert words in text, words


def test_a_run_that_has_written_nothing_says_so(tiny: Path, tmp_path: Path) -> None:
    made = Recorder.create(tmp_path / "runs", Synthesize(model=str(tiny), data="core"))
    with pytest.raises(LabError, match="has written no corpus; give a Synthesize run that has completed"):
        Written(run=str(made.path)).view()
