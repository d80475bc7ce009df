"""The mixture explorer: published epochs, limits that hold, what repeats are worth, and a state that is a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lablib.charts import svg
from lablib.data import PackedDataset
from lablib.data.mixing import anneal, effective_tokens
from lablib.data.mixing.laws import ExpLaw
from lablib.data.mixing.learned import MixingLaw
from lablib.data.prepare import prepare
from lablib.explorers import MixturePlan, View
from lablib.plan import estimate
from lablib.runs import Recorder, Run
from lablib.specs import Caps, LabError, Mixture, Prepare, Pretrain
from lablib.specs.mixtures import Curriculum, curricula, mixtures
from lablib.specs.synthetic import Written

OWN = anneal(
    Mixture(weights={"web": 0.9, "code": 0.1}), Mixture(weights={"code": 0.5, "notes": 0.5}), 1_000_000_000, 0.1
)
POOL = {"web": 2e9, "code": 1e8, "notes": 1e7}


def shown(view: View) -> dict[str, str]:
    return {item.label: item.value for item in view.headlines}


def test_olmo_3_reads_its_domains_as_often_as_published() -> None:
    """At the published 5.93T: 4.5 passes over FineMath, 3.0 over Stack-Edu, 2.4 over arXiv; the first is over the cap."""
    view = MixturePlan(tokens=5_930_000_000_000).view()
    passes = dict(zip(view.frames["epochs"]["domain"], view.frames["epochs"]["epochs"], strict=True))
    for name, wanted in (("FineMath3+", 4.46), ("Stack-Edu", 2.98), ("arXiv", 2.38)):
        assert passes[name] == pytest.approx(wanted, rel=0.01)
    over = [n for n, is_over in zip(passes, view.frames["epochs"]["over"], strict=True) if is_over]
    assert over == ["FineMath3+"] and any("FineMath3+ is read 4.45 times" in note for note in view.notes)
    assert any("sum to 1.0005" in note for note in view.notes) and "paper" in view.subtitle
    assert next(item.tone for item in view.headlines if item.label == "Most repeated") == "bad"


def test_moving_weights_keeps_the_cap_and_all_tokens() -> None:
    screen = MixturePlan(tokens=5_930_000_000_000, over_the_cap="move weights", max_epochs=2.0)
    frames = screen.view().frames
    assert max(frames["epochs"]["epochs"]) <= 2 * (1 + 1e-6) and not any(frames["epochs"]["over"])
    assert sum(screen.curriculum.domain_tokens().values()) == pytest.approx(5.93e12)
    with pytest.raises(LabError, match="fewer tokens"):
        screen.replace(tokens=20_000_000_000_000, max_epochs=0.5).view()


def test_the_cap_counts_what_earlier_phases_read() -> None:
    """Code has 4e8 tokens in four passes; the first phase takes 0.9e8 of them. Notes have 4e7, less than half the last."""
    screen = MixturePlan(plan=OWN, tokens=1_000_000_000, available=POOL, over_the_cap="move weights")
    spent = screen.curriculum.domain_tokens()
    assert spent["notes"] == pytest.approx(4e7) and spent["code"] == pytest.approx(0.9e8 + 0.6e8)
    with pytest.raises(LabError, match=r"sum to between 0 and 0\.75"):
        _ = screen.replace(max_epochs=1.5).curriculum


def test_worth_is_the_law_of_repeats_summed_over_domains() -> None:
    screen = MixturePlan(plan=OWN, tokens=1_000_000_000, available=POOL)
    worth = sum(effective_tokens(n, POOL[name]) for name, n in screen.curriculum.domain_tokens().items())
    assert shown(screen.view())["Worth in new tokens"] == f"{worth / 1e6:.3g}M"


def test_shares_are_whole_at_every_place_and_step_where_the_mixture_changes() -> None:
    for preset in (*mixtures, *curricula()):
        frame = MixturePlan(preset=preset).view().frames["mixture"]
        total: dict[int, float] = {}
        for token, share in zip(frame["tokens"], frame["share"], strict=True):
            total[token] = total.get(token, 0.0) + share
        assert list(total.values()) == pytest.approx([1.0] * len(total), abs=1e-4), preset
        assert max(total) == MixturePlan().tokens and len(set(frame["domain"])) <= 8
    frame = MixturePlan(preset="smollm3", tokens=11_100_000_000_000).view().frames["mixture"]
    assert sorted(set(frame["tokens"])) == [0, 8_000_000_000_000, 10_000_000_000_000, 11_100_000_000_000]


def test_its_state_is_a_recipe_with_the_curriculum_and_costs_are_its_estimate() -> None:
    screen = MixturePlan(plan=OWN, tokens=1_000_000_000, available=POOL, source_dollars={"notes": 1000.0, "web": 1.0})
    recipe = screen.recipe
    assert Pretrain.from_toml(recipe.to_toml()) == recipe
    assert recipe.mean_mixture.weights == pytest.approx({"web": 0.81, "code": 0.14, "notes": 0.05})
    assert isinstance(recipe.mixture, Curriculum) and recipe.mixture.starts == (0, 900_000_000, 1_000_000_000)
    dollars = estimate(recipe, screen._budget.cluster).dollars
    assert dollars is not None
    rows = {row[0]: row for row in screen.view().tables[0].rows}
    assert rows["web"][6] == f"${0.81 * dollars.mid:,.0f}"
    assert rows["notes"][7] == "$10" or rows["notes"][7] == "$10.00", "1,000 dollars a 10⁹ for the 10⁷ there are"


@pytest.mark.parametrize("rule", ["natural", "temperature", "UniMax"])
def test_rules_need_a_pool(rule: str) -> None:
    with pytest.raises(LabError, match="give `available`"):
        MixturePlan(preset="llama3", rule=rule).view()
    own = dict.fromkeys(mixtures["llama3"].weights, 1e12)
    given = MixturePlan(preset="llama3", rule=rule, available=own).recipe.mixture.weights
    assert given == pytest.approx(dict.fromkeys(own, 0.25))


def test_unimax_stays_under_the_cap() -> None:
    view = MixturePlan(rule="UniMax", max_epochs=3.0).view()
    assert max(view.frames["epochs"]["epochs"]) <= 3 * (1 + 1e-6)


def test_a_learned_law_shows_its_effect_and_its_limits() -> None:
    law = MixingLaw(
        domains=("web", "code", "notes"),
        laws={"code": ExpLaw(c=1.0, b=0.0, t=(0.0, -2.0, 0.0))},
        importance={"code": 1.0},
        runs=24,
        lowest=(0.0, 0.0, 0.2),
        highest=(1.0, 1.0, 1.0),
    )
    view = MixturePlan(plan=OWN, tokens=1_000_000_000, available=POOL, law=law).view()
    natural = 1e8 / sum(POOL.values())
    assert view.frames["effect"]["value"] == pytest.approx([float(np.exp(-2 * 0.14) - np.exp(-2 * natural))], rel=1e-4)
    assert any("24 proxies" in note and "notes" in note for note in view.notes)
    assert [figure.name for figure in view.charts] == ["mixture", "epochs", "effect"]
    strange = MixturePlan(law=law).view()
    assert "effect" not in strange.frames and any("says nothing of this mixture" in note for note in strange.notes)


def test_text_that_models_wrote_is_held_against_the_caps() -> None:
    """Notes are 5 % of the tokens and code 14 %; half of one and all of the other are 16.5 %."""
    written = {"notes": Written(share=0.5, generation=1), "code": Written(share=1.0, generation=1)}
    screen = MixturePlan(plan=OWN, tokens=1_000_000_000, available=POOL, written=written)
    assert shown(screen.view())["Synthetic"] == "16.5 %" and not any(
        "synthetic" in note for note in screen.view().notes
    )
    strict = screen.replace(caps=Caps(corpus=0.1)).view()
    assert next(item.tone for item in strict.headlines if item.label == "Synthetic") == "bad"
    assert "code has weight 14.0%" in strict.notes[0] and "synthetic.corpus=0.1" in strict.notes[0]
    assert "Synthetic" not in shown(screen.replace(written={}).view())


def test_what_is_not_known_is_said() -> None:
    view = MixturePlan(preset="smollm3").view()
    assert shown(view)["Repeats"] == "not known" and [figure.name for figure in view.charts] == ["mixture"]
    assert any("1.0056" in note for note in view.notes)
    partly = MixturePlan(preset="olmo3-midtrain").view()
    assert any("65.2%" in note for note in partly.notes)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"preset": "gpt-5"}, "there is no 'gpt-5'"), ({"plan": OWN, "rule": "natural"}, "as published"), ({"tokens": 1}, "tokens")]
)  # fmt: skip
def test_wrong_inputs_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(LabError, match=said):
        MixturePlan(**wrong)


def test_a_view_is_pure_and_its_charts_can_be_drawn() -> None:
    """Drawn by Vega itself, without a page."""
    view = MixturePlan().view()
    assert view.words() == MixturePlan().view().words()
    for figure in view.charts:
        assert "<svg" in svg(figure.still(view.frames))


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two domains, 30 documents of 5 words and 60 of 50."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    rows = [{"text": f"{name} {number} " + "so many words " * size, "domain": name, "licence": licence} for name, licence, count, size in (("chat", "MIT", 30, 5), ("pages", "CC0", 60, 50)) for number in range(count)]  # fmt: skip
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Recorder.create(tmp_path / "runs", Prepare(corpus=str(tmp_path / "made.jsonl"), vocab=300, heldout=0.1))
    prepare(run.recipe, run)
    return Run.open(run.path)


def test_the_planner_of_ones_own_data_has_its_tokens_and_its_card(prepared: Run) -> None:
    screen = MixturePlan.of(prepared, tokens=100_000)
    held = PackedDataset(prepared.path / "data", seq_len=64).shares
    assert screen.recipe.mean_mixture.weights == pytest.approx(held, abs=0.02)
    table = screen.view().tables[0]
    cards = {row[0]: row[-1] for row in table.rows}
    assert table.columns[-1] == "card" and set(cards) == {"chat", "pages"}
    assert all("not decontaminated" in card for card in cards.values())
    base = Pretrain(model="smollm2-135m", tokens="1M", seq_len=256, batch_tokens=1024, data=prepared.data)
    own = screen.replace(base=base).recipe
    assert (own.data, own.tokens, own.mixture) == (prepared.data, 100_000, screen.recipe.mixture)
    flat = screen.replace(rule="temperature", heat=20.0).recipe.mean_mixture.weights
    assert flat["chat"] > screen.recipe.mean_mixture.weights["chat"]
    assert MixturePlan.of(prepared, rule="UniMax").view().title == "UniMax shares of one's own domains"
