"""Caps on models' text, moved on a screen: what stays is what the guard leaves, and nothing is read again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from lablib.charts import svg
from lablib.charts.synthetic import FATES
from lablib.data import generations, provenance
from lablib.data.prepare import prepare
from lablib.explorers import Synthetic, synthetic
from lablib.report.record import collect
from lablib.report.sections.synthetic import synthetic as section
from lablib.runs import Recorder, Run
from lablib.specs import Caps, LabError, Prepare, Pretrain
from widgets import explore


def page(number: int, words: int) -> str:
    """Seventy of so many different words."""
    draw = random.Random(number)
    return " ".join(f"word{draw.randrange(words)}" for _ in range(70)) + f" {number}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A data run: people's text, a first generation as varied, and a second one of 25 words; no caps."""
    base = tmp_path_factory.mktemp("synthetic")
    rows = [{"text": page(n, 900), "domain": "people"} for n in range(30)]
    rows += [{"text": page(n, 900), "domain": "tales", "generation": 1} for n in range(30, 50)]
    rows += [{"text": page(n, 25), "domain": "tales", "generation": 2} for n in range(50, 60)]
    (base / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(base / "home"))
        recorder = Recorder.create(base / "runs", Prepare(corpus=str(base / "mine.jsonl"), vocab=300, heldout=0.1))
        prepare(recorder.recipe, recorder)
        yield Run(recorder.path)


def headline(plan: Synthetic, label: str) -> tuple[str, str, str]:
    """Value, note and tone."""
    found = next(one for one in plan.view().headlines if one.label == label)
    return found.value, found.note, found.tone


def test_the_caps_are_asked_again_and_nothing_is_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    origins = provenance.origins
    monkeypatch.setattr(provenance, "origins", lambda folder: read.append(folder) or origins(folder))
    synthetic._origins.cache_clear()
    plan = Synthetic.of(run)
    assert plan.caps == Caps(), "the recipe sets none, so the usual ones"
    assert headline(plan, "Documents that break a cap")[:2] == ("10", "10 by depth")
    assert headline(plan.replace(depth=2, corpus=1), "Documents that break a cap") == ("0", "none of 60", "good")
    tight = plan.replace(depth=5, corpus=0.1)
    assert headline(tight, "Documents that break a cap")[1].endswith("by corpus")
    told, total = tight.view(), sum(int(one.tokens.sum()) for one in origins(run.path / "data").values())
    assert sum(told.frames["generations"]["tokens"]) == total
    assert set(told.frames["generations"]["fate"]) == {FATES[0], FATES[3]}
    assert headline(tight, "Synthetic now")[0] == headline(plan, "Synthetic now")[0]
    assert float(headline(tight, "Under the caps")[0].split()[0]) <= 10
    assert len(read) == 1


def test_the_curve_holds_each_cap_and_grows_with_it(run: Run) -> None:
    frames = Synthetic.of(run).replace(depth=2).view().frames
    people = sum(int(one.tokens[one.share == 0].sum()) for one in provenance.origins(run.path / "data").values())
    for cap, tokens in zip(frames["curve"]["cap"], frames["curve"]["tokens"], strict=True):
        assert tokens <= cap * (people + tokens) * (1 + 1e-5)
    assert all(before <= after for before, after in pairwise(frames["curve"]["tokens"]))
    assert frames["curve"]["tokens"][-1] / (people + frames["curve"]["tokens"][-1]) == pytest.approx(frames["found"]["cap"][0], rel=1e-4)  # fmt: skip


def test_the_alarm_is_the_collapsed_generations_and_follows_the_knob(run: Run) -> None:
    plan = Synthetic.of(run)
    value, note, tone = headline(plan, "Diversity")
    assert value.startswith("alarm: −") and note.endswith("of generation 2") and tone == "bad"
    view = plan.view()
    left = dict(zip(zip(view.frames["diversity"]["generation"], view.frames["diversity"]["measure"], strict=True), view.frames["diversity"]["left"], strict=True))  # fmt: skip
    assert all(left[0, name] == 1 and left[1, name] > 0.9 for name in {name for _, name in left})
    assert left[2, "distinct-1"] < 0.5 and left[2, "compression ratio"] < 0.9
    assert any(note.startswith("Generation 2 has drifted") for note in view.notes)
    assert headline(plan.replace(drift=0.95), "Diversity")[0] == "no alarm"
    for figure in view.charts:
        assert svg(figure.still(view.frames)).startswith("<svg")


def test_the_screen_is_a_recipe_that_refuses(run: Run) -> None:
    board = explore(Synthetic.of(run))
    board.value = {**board.value, "depth": 0, "corpus": 0.2}
    assert board.error == "" and board.recipe.synthetic == Caps(depth=0, corpus=0.2)
    assert board.recipe.replace(synthetic=None) == run.recipe
    with pytest.raises(LabError, match="made no 'data'"):
        Synthetic.of(Run(Recorder.create(run.path.parent, Prepare()).path)).view()


def test_the_report_says_what_caps_would_drop_and_what_has_drifted(run: Run) -> None:
    made = section(collect([run], "", ""))
    text = str(made.body)
    told = generations.read(run.path)
    assert told is not None
    gone = sum(one.tokens - one.stays for one in told.shares)
    assert f"The recipe sets no caps; the usual ones (generation 1 at most, 100% of one document, 50% of all tokens) would drop {gone / 1000:.3g}k tokens" in text  # fmt: skip
    assert "Generation 2 has drifted from people&#x27;s text" in text and [one.figure.name for one in made.drawings] == ["generations", "diversity"]  # fmt: skip
    other = Run(Recorder.create(run.path.parent, Pretrain(model="qwen3-0.6b", tokens="1M")).path)
    assert "No document of this chain" in section(collect([other], "", "")).body
