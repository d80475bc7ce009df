"""Intervals against scipy, enumeration and published numbers; and the unpaired mistake, which differs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lablib.evals import statistics as s
from lablib.specs import LabError


@given(trials=st.integers(1, 400), data=st.data())
def test_wilson_is_scipys(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    ours = s.wilson(successes, trials)
    peer = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high), abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def discordant(wins: int, losses: int, items: int) -> tuple[list[float], list[float]]:
    ties = items - wins - losses
    return [1.0] * wins + [0.0] * losses + [1.0] * ties, [0.0] * wins + [1.0] * losses + [1.0] * ties


def test_the_known_example_of_pairing() -> None:
    """100 items, discordant 10 and 5: paired standard error .0386, exact McNemar .3018; unpaired would be .0702."""
    model, baseline = [1.0] * 60 + [0.0] * 40, [1.0] * 50 + [0.0] * 10 + [1.0] * 5 + [0.0] * 35
    assert s.paired_error(model, baseline) == pytest.approx(0.0386, abs=5e-5)
    difference = s.paired_difference(model, baseline)
    assert difference.p == pytest.approx(0.3018, abs=5e-5)
    assert (difference.value, difference.verdict) == (pytest.approx(0.05), "no result")
    unpaired = math.sqrt(sum(np.var(x, ddof=1) / 100 for x in (model, baseline)))
    assert unpaired == pytest.approx(0.0702, abs=1e-4)


@given(wins=st.integers(0, 40), losses=st.integers(0, 40))
def test_mcnemar_is_the_enumerated_coin(wins: int, losses: int) -> None:
    total = wins + losses
    probabilities = [math.comb(total, k) / 2**total for k in range(total + 1)]
    extreme = sum(p for p in probabilities if p <= probabilities[wins] * (1 + 1e-9))
    assert s.mcnemar(wins, losses) == pytest.approx(min(1.0, extreme))


@pytest.mark.parametrize(("wins", "verdict"), [(4, "no result"), (5, "no result"), (6, "improvement")])
def test_few_discordant_items_need_the_exact_tests_caution(wins: int, verdict: str) -> None:
    """At 100 items the interval agrees with the exact test (p .125, .0625, .031); a bootstrap calls four wins a result."""
    model, baseline = discordant(wins, 0, 100)
    found = s.paired_difference(model, baseline)
    assert (
        found.verdict == verdict and (found.p or 1) < 0.05 if verdict == "improvement" else found.verdict == "no result"
    )
    assert s.paired_difference(baseline, model).verdict == {"improvement": "regression"}.get(verdict, verdict)
    if wins == 4:
        gain = np.array(model) - np.array(baseline)
        draws = np.random.default_rng(0).choice(gain, (4000, 100)).mean(1)
        assert np.quantile(draws, 0.025) > 0


@pytest.mark.parametrize("discord", [0.1, 0.3, 0.6])
def test_false_verdicts_are_rare_by_enumeration(discord: float) -> None:
    """Exact over every outcome of 40 items where neither model is better: a verdict in at most about one in twenty."""
    n, wrong = 40, 0.0
    for wins, losses in itertools.product(range(n + 1), repeat=2):
        if wins + losses <= n and s.paired_shares(wins, losses, n).verdict != "no result":
            wrong += stats.multinomial.pmf(
                [wins, losses, n - wins - losses], n, [discord / 2, discord / 2, 1 - discord]
            )
    assert wrong <= 0.055


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_differences_are_antisymmetric_and_verdicts_follow_the_interval(rows: list[tuple[bool, bool]]) -> None:
    model, baseline = ([float(row[i]) for row in rows] for i in (0, 1))
    there, back = s.paired_difference(model, baseline), s.paired_difference(baseline, model)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low <= there.value <= there.high
    assert (there.verdict == "no result") == (there.low <= 0 <= there.high)


def test_equal_models_are_no_result() -> None:
    assert s.paired_difference([1.0] * 50, [1.0] * 50).verdict == "no result"
    assert s.paired_difference([0.3] * 50, [0.3] * 50).verdict == "no result"


def test_bootstrap_of_graded_scores_agrees_with_the_normal_interval() -> None:
    dice = np.random.default_rng(1)
    model, baseline = dice.normal(0.6, 0.2, 400), dice.normal(0.5, 0.2, 400)
    found = s.paired_difference(list(model), list(baseline))
    gain = model - baseline
    half = 1.96 * gain.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.004)
    assert found.p is None and found.verdict == "improvement"
    mean = s.mean_interval(list(model))
    assert mean.value == pytest.approx(model.mean()) and mean.low < mean.value < mean.high


def test_ratios_are_of_sums_and_a_constant_rate_has_no_width() -> None:
    sizes = [10.0, 200.0, 30.0]
    found = s.ratio_interval([2 * size for size in sizes], sizes)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    uneven = s.ratio_interval([10.0, 600.0], [10.0, 200.0])
    assert uneven.value == pytest.approx(610 / 210)


def test_saved_bits_are_positive_where_the_model_needs_fewer() -> None:
    sizes = [100.0] * 30
    better, worse = [200.0 + i for i in range(30)], [210.0 + i for i in range(30)]
    found = s.ratio_saving(better, worse, sizes)
    assert (found.value, found.verdict) == (pytest.approx(0.1), "improvement")
    assert s.ratio_saving(worse, better, sizes).verdict == "regression"


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(LabError, match="same items"):
        s.paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(LabError, match="no scores"):
        s.mean_interval([])
