"""Laws of hyper-parameters against their papers' own runs, optima of other people's grids and measured step counts."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.planner.hyperparameters import decay, factor, rows
from lab.__main__ import main
from lablib import Cluster, plan_for
from lablib.explorers import BudgetPlan
from lablib.plan import estimate
from lablib.plan.scaling import LAWS, Scale, advice, batch_tokens, cautions, far, learning_rate, suggested, words
from lablib.plan.search import find_layouts
from lablib.specs import Optimizer, Parallelism, Pretrain, catalog
from lablib.specs.batching import BatchRamp
from lablib.specs.recipe import MuP

ROWS = rows()
LAW = {(law.name, law.quantity): law for law in LAWS}


def recipe(**changes: object) -> Pretrain:
    base = {"model": "llama-3.2-1b", "tokens": "20B", "seq_len": 2048, "batch_tokens": 524_288, "parallelism": Parallelism(dp_shard=8)}  # fmt: skip
    return Pretrain(**{**base, **changes})


@pytest.mark.parametrize(("run", "rate", "batch"), [("DeepSeek LLM 7B", 4.2e-4, 2304 * 4096), ("DeepSeek LLM 67B", 3.2e-4, 4608 * 4096)])  # fmt: skip
def test_the_deepseek_law_is_what_its_authors_trained_with(run: str, rate: float, batch: float) -> None:
    """arXiv 2401.02954 Table 2, from the model's shape and tokens alone: C takes attention in and leaves the head out."""
    scale = next(row.scale for row in ROWS if row.run == run)
    assert LAW["DeepSeek LLM", "learning_rate"].of(scale) == pytest.approx(rate, rel=0.03)
    assert LAW["DeepSeek LLM", "batch_tokens"].of(scale) == pytest.approx(batch, rel=0.06)


def test_the_step_law_is_its_published_fit() -> None:
    """The bootstrap means of step-law/steplaw's own CSV: 1.7973, -0.71292, 0.30749; 0.58069, 0.57094."""
    scale = Scale(7e9, 1.4e12, 0)
    rate, batch = LAW["Step Law", "learning_rate"].of(scale), LAW["Step Law", "batch_tokens"].of(scale)
    assert rate == pytest.approx(1.7973 * 7e9**-0.71292 * 1.4e12**0.30749, rel=0.02)
    assert batch == pytest.approx(0.58069 * 1.4e12**0.57094, rel=0.01) and batch_tokens(1.4e12) == batch


def test_parameters_are_counted_without_the_embedding() -> None:
    """GPT-2's 124M are 85M and GPT-3's 175B are 12·L·h² = 173.9B, as Kaplan counts (arXiv 2001.08361 §2.1)."""
    small, large = (Scale.of(recipe(model=name, seq_len=1024)) for name in ("gpt2", "gpt3-175b"))
    assert small.params == pytest.approx(12 * 12 * 768**2, rel=0.002)
    assert large.params == pytest.approx(12 * 96 * 12288**2, rel=0.002)
    assert small.flops > 6 * small.params * small.tokens


def test_what_is_suggested_is_near_the_optima_of_a_grid_that_no_law_was_fitted_on() -> None:
    """Best of 91 pairs each, 46M to 2.9B parameters; neither law alone keeps all rates within 3 times."""
    optima = [row for row in ROWS if row.kind == "optimum"]
    rates = [factor(learning_rate(row.scale), row.learning_rate) for row in optima]
    batches = [factor(batch_tokens(row.scale.tokens), row.batch_tokens or 0) for row in optima]
    assert len(optima) == 18 and max(rates) < 3 and median(rates) < 1.6 and max(batches) < 2.7 and median(batches) < 1.9
    deepseek = [factor(LAW["DeepSeek LLM", "learning_rate"].of(row.scale), row.learning_rate) for row in optima]
    assert max(deepseek) > 6


def test_published_runs_are_not_called_wrong() -> None:
    """Of 34, GPT-3 6.7B alone trained more than four times below all laws; rates a hundredfold are caught where a law holds."""
    runs = [row for row in ROWS if row.kind == "run"]
    assert [row.run for row in runs if far("learning_rate", row.learning_rate, row.scale)] == ["GPT-3 6.7B"]
    assert not [row.run for row in runs if row.batch_tokens and far("batch_tokens", row.batch_tokens, row.scale)]
    caught = [row for row in runs if far("learning_rate", 100 * row.learning_rate, row.scale)]
    assert {row.run for row in runs} - {row.run for row in caught} == {
        row.run for row in runs if row.scale.flops > 9e23
    }
    assert median(factor(learning_rate(row.scale), row.learning_rate) for row in runs) < 1.6
    assert median(factor(batch_tokens(row.scale.tokens), row.batch_tokens) for row in runs if row.batch_tokens) < 1.6
    decays = [factor(decay(row), row.weight_decay) for row in runs if row.weight_decay and row.batch_tokens]
    assert len(decays) == 19 and max(decays) < 4 and median(decays) < 1.7


STEPS = {
    # tokens of 20 a parameter, steps to the target loss at batches of 256, 512, … sequences of 512
    "85M": (13282, (13282, 7000, 3840, 2500, 1800)),
    "151M": (23438, (24000, 11951, 7128, 4200, 2760)),
    "302M": (46875, (46000, 23400, 13300, 7224, 4980)),
    "604M": (93750, (81000, 37440, 21320, 11400, 7199)),
    "1.2B": (187500, (176000, 94000, 46500, 25000, 15360)),
}
"""Printed by plots/chinchilla.ipynb of hlzhang109/critical-batch-size."""


@pytest.mark.parametrize("size", STEPS)
def test_the_critical_batch_is_where_measured_steps_cost_a_fifth_more_tokens(size: str) -> None:
    """This settles the law's units: millions of tokens in, sequences of 512 out."""
    length, steps = STEPS[size]
    costs = [count * 2**place / steps[0] for place, count in enumerate(steps)]
    place = next(place for place, cost in enumerate(costs) if cost > 1.2)
    share = (1.2 - costs[place - 1]) / (costs[place] - costs[place - 1])
    measured = 256 * 512 * 2 ** (place - 1 + share)
    law = LAW["Zhang", "critical_batch_tokens"].of(Scale(1, length * 256 * 512, 1))
    assert abs(log2(law / measured)) < 0.6


@settings(max_examples=40)
@given(st.sampled_from(["gpt2", "llama-3.2-1b", "qwen3-30b-a3b"]), st.integers(10**6, 10**13), st.sampled_from([1, 3, 8]), st.sampled_from([1, 5]))  # fmt: skip
def test_a_suggestion_is_a_recipe_and_settles(model: str, tokens: int, ranks: int, micro: int) -> None:
    asked = recipe(model=model, tokens=tokens, seq_len=1024, batch_tokens=1024 * ranks * micro, parallelism=Parallelism(dp_shard=ranks, micro_batch_size=micro))  # fmt: skip
    made = suggested(asked)
    assert suggested(made) == made and made.step_tokens == made.batch_tokens
    assert made.replace(optimizer=asked.optimizer, batch_tokens=asked.batch_tokens) == asked
    assert suggested(asked, batch=False).batch_tokens == asked.batch_tokens
    assert not list(cautions(made)) or made.step_tokens == 1024 * ranks * micro


def test_where_no_law_speaks_nothing_is_filled_in() -> None:
    lion, proxied = recipe(optimizer=Optimizer(kind="lion")), recipe(model=catalog.models["llama-2-7b"], mup=MuP(hidden=256))  # fmt: skip
    for one in (lion, proxied):
        assert suggested(one).optimizer == one.optimizer
        assert {said.quantity for said in advice(one)} == {"batch_tokens", "critical_batch_tokens"}


def test_the_words_name_only_what_is_filled_in() -> None:
    ramped = recipe(batch_ramp=BatchRamp(start=recipe().step_tokens // 4, tokens=10**6))
    assert (
        "batch_tokens" in words(recipe()) and "batch_tokens" not in words(ramped) and "learning_rate" in words(ramped)
    )


def test_a_far_rate_or_batch_is_named_in_the_plan_and_only_where_a_law_holds() -> None:
    cluster = Cluster(accelerator="h100-sxm")
    far_off = recipe(optimizer=Optimizer(learning_rate=3e-2), batch_tokens=2048 * 8)
    said = [warning for warning in estimate(far_off, cluster).warnings if "published laws" in warning]
    assert [warning.partition("=")[0] for warning in said] == ["optimizer.learning_rate", "batch_tokens"]
    assert not any("published laws" in warning for warning in estimate(suggested(far_off), cluster).warnings)
    tiny = far_off.replace(tokens=10**6)
    assert all(one.outside for one in advice(tiny)) and not list(cautions(tiny))
    assert "extrapolations" in words(tiny) and "extrapolations" not in words(far_off)


def test_what_the_planners_make_carries_the_law() -> None:
    cluster = Cluster(accelerator="h100-sxm", nodes=2, price_per_gpu_hour=2.5)
    made = [
        plan_for("$2k", cluster=cluster, sizes=["qwen3-0.6b"]).best.recipe,
        find_layouts("llama-3.2-1b", cluster, "1M", 4096).best.recipe(),
        BudgetPlan(gpus=64).recipe,
    ]
    for one in made:
        assert one.optimizer.learning_rate == learning_rate(Scale.of(one)) != Optimizer().learning_rate


def test_the_screen_draws_the_laws_through_the_recipe() -> None:
    plan = BudgetPlan(gpus=64)
    frames = plan.view().frames
    assert frames["rates_here"]["y"] == [plan.recipe.optimizer.learning_rate]
    assert set(frames["rates"]["held"]) == {"fitted", "beyond"} and "Kaplan" in frames["rates"]["law"]
    low, high = min(frames["batches"]["x"]), max(frames["batches"]["x"])
    assert low < frames["batches_here"]["x"][0] < high


def test_the_command_line_says_each_law_and_the_recipe_it_would_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    path = tmp_path / "r.toml"
    recipe().save(path)
    assert main(["estimate", str(path), "--laws"]) == 0
    assert "Step Law" in capsys.readouterr().out
    assert main(["estimate", str(path), "--laws", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Pretrain(**said["suggested"]) == suggested(recipe())
    assert {one["law"]: one["ratio"] for one in said["laws"] if one["quantity"] == "learning_rate"}["Kaplan"] == pytest.approx(0.85, abs=0.01)  # fmt: skip
