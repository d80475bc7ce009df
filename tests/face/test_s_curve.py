"""The S-curve explorer says what the formulas, the settings and a real run say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lablib.data.dedup import near_duplicates
from lablib.data.documents import Document
from lablib.explorers import SCurve
from lablib.specs import LabError, Prepare
from lablib.specs.dedup import Dedup


def rows(screen: SCurve) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in screen.view().tables[0].rows}


def test_the_table_holds_the_measured_field() -> None:
    """FineWeb's 14×8: the notes' theory gives .30 at 5 % edits with 5 words, .77 with 3 (measured .38 to .44)."""
    table = rows(SCurve(threshold=0.5, bands=14, rows=8))
    assert table["5 %"][:2] == ("0.63", "30 %")
    assert float(rows(SCurve(threshold=0.5, bands=14, rows=8, ngram=3))["5 %"][1].split()[0]) == pytest.approx(
        77, abs=1
    )


def test_what_the_screen_says_is_what_a_run_finds(home: Path) -> None:
    """A thousand copies of 500-word documents with 3 % of words changed: the share that goes is the headline's."""
    rng, screen = random.Random(2), SCurve()
    pairs = []
    for _ in range(1000):
        words = [f"w{rng.getrandbits(40)}" for _ in range(500)]
        copy = [f"n{rng.getrandbits(40)}" if rng.random() < 0.03 else word for word in words]
        pairs.append((" ".join(words), " ".join(copy)))
    documents = [Document("d", "s", "l", text) for pair in pairs for text in pair]
    share = len(near_duplicates(documents, screen.dedup)) / len(pairs)
    said = float(screen.view().headlines[0].value.split()[0]) / 100
    assert share == pytest.approx(said, abs=0.05)


def test_the_default_knobs_are_the_default_settings_and_keep_the_promise() -> None:
    screen = SCurve()
    assert screen.dedup.banding == Dedup().banding and screen.dedup.threshold == Dedup().threshold
    promise = screen.view().headlines[1]
    assert promise.tone == "good" and promise.label == "Pairs at 0.8 that are found"
    assert SCurve(bands=8).view().headlines[1].tone == "warn"


def test_the_words_name_what_is_out_of_reach_and_what_would_help() -> None:
    """Verification sets the limit of a generous banding, the banding that of a mean one."""
    generous, mean = SCurve(bands=60, rows=4).view().notes, SCurve(threshold=0.5, bands=4, rows=6).view().notes
    assert any("lower the threshold or shorten the shingles" in note for note in generous)
    assert any("take more bands or fewer rows" in note for note in mean)
    assert all(any("never found" in note for note in notes) for notes in (generous, mean))


def test_shorter_shingles_and_lower_thresholds_reach_further() -> None:
    usual = SCurve().reaches(0.5)
    shorter, lower = SCurve(ngram=3).reaches(0.5), SCurve(threshold=0.5, bands=34, rows=4).reaches(0.5)
    assert usual and shorter and lower and shorter > usual and lower > usual
    assert SCurve(threshold=0.9, bands=2, rows=16).reaches(0.9999) == 0


def test_curves_lie_as_declared() -> None:
    """Nothing goes below the threshold; nothing goes that was not proposed; the diamond is on the green curve."""
    frames = SCurve(rate=4).view().frames
    curve = frames["catch"]
    assert all(gone == 0 for at, gone in zip(curve["jaccard"], curve["removed"], strict=True) if at < 0.69)
    assert all(gone <= seen for seen, gone in zip(curve["proposed"], curve["removed"], strict=True))
    at = frames["edits"]["rate"].index(4.0)
    assert frames["chosen"] == {"rate": [4.0], "removed": [frames["edits"]["removed"][at]]}


def test_its_figures_are_valid_and_on_the_frames_that_they_name() -> None:
    view = SCurve().view()
    for figure in view.charts:
        figure.chart.to_dict(validate=True)
        assert set(figure.data) <= set(view.frames)


def test_a_setting_that_finds_nothing_is_refused_with_one_that_does() -> None:
    with pytest.raises(LabError, match="bands=16, rows=6 find 99%"):
        SCurve(bands=1, rows=16).view()
    with pytest.raises(LabError, match="threshold"):
        SCurve(threshold=2)


def test_its_state_is_a_recipe_and_the_view_is_pure() -> None:
    recipe = SCurve(threshold=0.6, bands=20, rows=4).recipe
    assert Prepare.from_toml(recipe.to_toml()) == recipe
    assert recipe.dedup == Dedup(threshold=0.6, bands=20, rows=4)
    assert SCurve().view().words() == SCurve().view().words()
