"""The funnel's screen says what the verdicts say, and its knobs are the thresholds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lablib.charts import svg
from lablib.data import cache, corpus
from lablib.data.corpus import Corpus
from lablib.data.quality import signals, verdicts
from lablib.data.quality.sample import sample
from lablib.data.scale import corpora
from lablib.data.sources.files import Files
from lablib.explorers import FunnelPlan
from lablib.explorers.funnel import MOVED, PUBLISHED
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Prepare
from lablib.specs.cleaning import PRESETS, Clean
from widgets import explore


def shown(plan: FunnelPlan) -> dict[str, str]:
    return {item.label: item.value for item in plan.view().headlines}


def test_the_screen_shows_the_verdicts_of_its_own_thresholds() -> None:
    plan = FunnelPlan(preset="fineweb", splitter="words")
    told, view = verdicts(sample("words"), plan.clean), plan.view()
    assert view.headlines[0].note == f"{int(told.kept.sum())} of 150"
    rows = {row[0]: row[3] for row in view.tables[0].rows}
    assert rows == {effect.says: f"{effect.docs:,}" for effect in told.effects}
    yours = [share for share, name in zip(view.frames["funnel"]["share"], view.frames["funnel"]["funnel"], strict=True) if name == "yours"]  # fmt: skip
    assert yours[0] == 1 and yours == sorted(yours, reverse=True)
    assert yours[-1] == pytest.approx(told.kept.mean(), rel=1e-5)


def test_the_knobs_begin_at_the_published_thresholds() -> None:
    for preset in ("gopher", "fineweb"):
        plan = FunnelPlan(preset=preset, language="en" if preset == "fineweb" else "any")
        assert plan.clean == Clean(preset=preset), "nothing moved yet"
    defaults = {name: FunnelPlan.model_fields[name].default for name in MOVED}
    assert defaults == {name: PRESETS["fineweb"][name] for name in MOVED}


@pytest.mark.parametrize("name", MOVED)
def test_every_knob_moves_what_is_kept(name: str) -> None:
    """From its loosest end to its strictest."""
    low, high = (FunnelPlan(preset="fineweb", **{name: end}) for end in ends(name))
    assert shown(low)["Documents kept"] != shown(high)["Documents kept"]
    assert low.clean != high.clean


def ends(name: str) -> tuple[float, float]:
    knob = next(knob for knob in FunnelPlan.knobs() if knob["name"] == name)
    return knob["min"], knob["max"]


def test_language_and_addresses_are_asked_whatever_the_preset() -> None:
    plain = FunnelPlan(preset="none")
    assert shown(plain)["Documents kept"] == "100 %"
    assert shown(plain.replace(language="en", min_language_score=0.9))["Documents kept"] != "100 %"
    assert plain.replace(personal="drop", max_emails=2).clean == Clean(max_emails=2)
    assert "Fewest words" in plain.view().notes[0]


def test_what_was_dropped_is_shown_with_its_reason() -> None:
    plan = FunnelPlan()
    told = verdicts(sample(), plan.clean)
    reasons = {effect.says for effect in told.effects if effect.docs}
    rows = plan.view().tables[1].rows
    assert rows and {row[2] for row in rows} <= reasons
    assert len({row[2] for row in rows}) == min(len(reasons), len(rows)), (
        "a document for each reason before a second one"
    )


def test_published_funnels_carry_their_source() -> None:
    for name in PUBLISHED:
        rows = FunnelPlan(published=name).view().tables[2].rows
        assert rows[0][2] == "100 %" and all(row[3] in {"paper", "secondary"} and row[4] for row in rows)
    olmo = FunnelPlan(published="Olmo 3 web (Dolma 3)").view().tables[2].rows
    assert olmo[1][2] == "15.4 %", "84.6 % dropped by heuristics and language (Olmo 3 report, table 4)"


def test_a_corpus_is_shown_by_its_folder(tmp_path: Path, home: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Only a few words of text are in this one.")
    (tmp_path / "corpus").mkdir()
    corpus.build([Files(tmp_path / "texts")], tmp_path / "corpus")
    built = Corpus(tmp_path / "corpus")
    plan = FunnelPlan(corpus=str(built.folder))
    with pytest.raises(LabError, match="is no corpus of the lab's cache"):
        plan.replace(corpus="nothing").view()
    with pytest.raises(LabError, match=r"has no signals by splitter 'whitespace'; measure it"):
        plan.view()
    signals(built)
    assert plan.view().headlines[0].note == "0 of 1" and shown(plan)["By splitter"] == "whitespace 0 %"


def test_the_parts_of_a_runs_corpus_are_shown_as_one(tmp_path: Path, home: Path) -> None:
    """As a run leaves them: each part has signals of its own, the whole has none."""
    recorder = Recorder.create(tmp_path / "runs", Prepare(clean=Clean(min_words=5)))
    recorder.event("corpus", key="whole")
    whole, parts = cache.folder("corpora", "whole"), []
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} of more than 32 characters.")
        parts.append(whole / f"part-{number:05}")
        parts[-1].mkdir(parents=True)
        corpus.build([Files(tmp_path / f"{number}.txt")], parts[-1])
        signals(Corpus(parts[-1]))
    corpora.describe(whole, parts)
    view = FunnelPlan.of(Run(recorder.path)).view()
    assert view.headlines[0].note == "2 of 2"


def test_it_is_pure_renders_and_its_thresholds_are_a_recipes() -> None:
    view = FunnelPlan().view()
    assert FunnelPlan().view().words() == view.words()
    for figure in view.charts:
        assert "<svg" in svg(figure.still(view.frames))
    assert FunnelPlan().recipe.clean == FunnelPlan().clean
    board = explore(FunnelPlan())
    board.value = {**board.value, "min_words": 1000}
    assert not board.error and board.screens[0]["headlines"][0]["value"] != view.headlines[0].value
