"""Mixtures: closed forms, published figures, properties that must hold for any input, and known laws found again."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lablib.data import order
from lablib.data.mixing import (
    DomainWeights,
    WindowOrder,
    anneal,
    between,
    check_epochs,
    constrain,
    curricula,
    effective_tokens,
    epochs,
    most_tokens,
    natural,
    ramp,
    shares,
    temperature,
    unimax,
    value_of_an_epoch,
)
from lablib.data.mixing.shares import unimax_tokens
from lablib.plan.repeats import DECAY_EPOCHS
from lablib.specs import LabError, Mixture
from lablib.specs.mixtures import Curriculum, curriculum
from lablib.specs.synthetic import Caps, Synthetic, Written

POOLS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1, 1e12), min_size=1)
WEB, CODE = Mixture(weights={"web": 0.8, "code": 0.2}), Mixture(weights={"code": 0.5, "math": 0.5})


class TestRules:
    @given(POOLS, st.floats(0.05, 1e6))
    def test_shares_sum_to_one(self, pool: dict[str, float], heat: float) -> None:
        for found in (natural(pool), temperature(pool, heat), unimax(pool, 1e9)):
            assert math.isclose(sum(found.values()), 1, abs_tol=1e-9) and min(found.values()) >= 0

    @given(POOLS)
    def test_temperature_goes_from_natural_to_uniform(self, pool: dict[str, float]) -> None:
        assert temperature(pool, 1) == pytest.approx(natural(pool))
        assert temperature(pool, 1e9) == pytest.approx(dict.fromkeys(pool, 1 / len(pool)), rel=1e-6)

    def test_temperature_by_hand(self) -> None:
        """T = 2: square roots of 1 and 4."""
        assert temperature({"a": 1, "b": 4, "none": 0}, 2) == pytest.approx({"a": 1 / 3, "b": 2 / 3, "none": 0})

    def test_cold_shares_do_not_underflow(self) -> None:
        assert temperature({"a": 1e-3, "b": 1e12}, 0.01) == {"a": 0.0, "b": 1.0}

    @given(POOLS, st.floats(1, 1e13), st.floats(0.5, 20))
    def test_unimax_is_max_min_fair_under_its_cap(self, pool: dict[str, float], tokens: float, cap: float) -> None:
        """The definition: all that can be given is, and who is below the cap has no less than anyone else."""
        given_tokens = unimax_tokens(pool, tokens, cap)
        assert sum(given_tokens.values()) == pytest.approx(min(tokens, cap * sum(pool.values())))
        most = max(given_tokens.values())
        for name, count in given_tokens.items():
            assert count <= cap * pool[name] * (1 + 1e-9)
            assert count >= min(most, cap * pool[name]) * (1 - 1e-9)

    def test_unimax_from_the_largest_down_would_not_be_fair(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Planted: the order turned round gives the last domains more than is left of them."""
        pool, tokens = {"small": 1.0, "large": 100.0}, 20.0
        assert unimax_tokens(pool, tokens, 1) == {"small": 1.0, "large": 19.0}
        monkeypatch.setattr(shares, "sorted", lambda items, key: sorted(items, key=key, reverse=True), raising=False)
        assert sum(unimax_tokens(pool, tokens, 1).values()) < tokens

    def test_wrong_numbers_are_refused(self) -> None:
        for call in (lambda: natural({"a": 0.0}), lambda: natural({"a": -1}), lambda: temperature({"a": 1.0}, 0),
                     lambda: unimax({"a": 1.0}, 0)):  # fmt: skip
            with pytest.raises(LabError):
                call()


class TestLimits:
    @settings(max_examples=150)
    @given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
    def test_boxes_hold_and_shares_sum_to_one(self, rows: list[tuple[float, float, float]]) -> None:
        names = [f"d{i}" for i in range(len(rows))]
        whole = sum(row[0] for row in rows)
        weights = {name: row[0] / whole for name, row in zip(names, rows, strict=True)}
        low = {name: min(row[1:]) / len(rows) for name, row in zip(names, rows, strict=True)}
        high = {name: max(row[1:]) for name, row in zip(names, rows, strict=True)}
        if sum(high.values()) < 1 - 1e-6:
            with pytest.raises(LabError, match="never 1"):
                constrain(weights, low=low, high=high)
        if sum(high.values()) < 1:
            return
        found = constrain(weights, low=low, high=high)
        assert sum(found.values()) == pytest.approx(1, abs=1e-9)
        assert all(low[name] - 1e-12 <= found[name] <= high[name] + 1e-12 for name in names)

    def test_what_keeps_the_limits_is_left_alone(self) -> None:
        assert constrain({"a": 0.3, "b": 0.7}, low={"a": 0.1}, high={"b": 0.9}) == pytest.approx({"a": 0.3, "b": 0.7})

    def test_a_cap_gives_to_the_others_in_proportion(self) -> None:
        assert constrain({"a": 0.6, "b": 0.3, "c": 0.1}, high={"a": 0.2}) == pytest.approx({"a": 0.2, "b": 0.6, "c": 0.2})  # fmt: skip

    def test_it_is_the_nearest_in_divergence(self) -> None:
        """Against a thousand random mixtures that keep the limits."""
        weights, high = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}, {"a": 0.3, "d": 0.04}
        found = np.array(list(constrain(weights, high=high).values()))
        wanted = np.array(list(weights.values()))
        draws = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
        inside = draws[(draws[:, 0] <= 0.3) & (draws[:, 3] <= 0.04)]
        apart = (inside * np.log(inside / wanted)).sum(1)
        assert len(inside) > 300 and (found * np.log(found / wanted)).sum() <= apart.min()

    def test_an_epoch_cap_holds_and_the_most_tokens_are_where_it_binds(self) -> None:
        pool = {"big": 1000.0, "small": 10.0}
        found = constrain({"big": 0.5, "small": 0.5}, tokens=500, available=pool, max_epochs=4)
        assert epochs(found, 500, pool)["small"] == pytest.approx(4)
        assert most_tokens({"big": 0.5, "small": 0.5}, pool, 4) == 80
        with pytest.raises(LabError, match="fewer tokens"):
            constrain({"big": 0.5, "small": 0.5}, tokens=5000, available=pool, max_epochs=4)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.3, 1), st.floats(0, 1)), min_size=2, max_size=6),
        st.floats(0.05, 1),
    )
    def test_a_cap_on_synthetic_text_holds_or_is_said_to_be_impossible(
        self, rows: list[tuple[float, float, float]], cap: float
    ) -> None:
        """Whether shares under it exist is asked of SciPy's linear programme."""
        names = tuple(f"d{i}" for i in range(len(rows)))
        wanted, most, parts = np.array(rows).T
        wanted = wanted / wanted.sum()
        written = Synthetic(domains={n: Written(share=p, generation=1) for n, p in zip(names, parts, strict=True) if p}, caps=Caps(corpus=cap))  # fmt: skip
        least = linprog(parts, A_eq=[np.ones(len(rows))], b_eq=[1], bounds=[(0, top) for top in most])
        weights, high = dict(zip(names, wanted, strict=True)), dict(zip(names, most, strict=True))
        if least.status == 2 or least.fun > cap + 1e-6:
            with pytest.raises(LabError, match=r"never 1|cannot take all|synthetic\.corpus"):
                constrain(weights, high=high, written=written)
        elif least.fun < cap - 1e-6:
            found = constrain(weights, high=high, written=written)
            assert sum(found.values()) == pytest.approx(1, abs=1e-9) and written.against(found) == ""
            assert all(0 <= found[name] <= high[name] + 1e-12 for name in names)

    def test_under_a_cap_it_is_still_the_nearest(self) -> None:
        """Against many random mixtures; a domain too deep gets nothing."""
        weights = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
        models = {"a": Written(share=0.9, generation=1), "c": Written(share=0.2, generation=1)}
        written = Synthetic(domains=models, caps=Caps(corpus=0.25))
        found, wanted = np.array(list(constrain(weights, written=written).values())), np.array(list(weights.values()))
        draws = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
        inside = draws[draws @ [0.9, 0, 0.2, 0] <= 0.25]
        apart = (inside * np.log(inside / wanted)).sum(1)
        assert len(inside) > 300 and (found * np.log(found / wanted)).sum() <= apart.min()
        assert found @ [0.9, 0, 0.2, 0] == pytest.approx(0.25) and written.against(weights)
        deep = Synthetic(domains={"a": Written(share=1, generation=2)}, caps=Caps())
        assert constrain(weights, written=deep)["a"] == 0

    def test_a_weight_of_nothing_stays_nothing(self) -> None:
        assert constrain({"a": 0.9, "b": 0.1, "c": 0.0}, high={"a": 0.5})["c"] == 0
        with pytest.raises(LabError, match="another domain"):
            constrain({"a": 1.0, "b": 0.0}, high={"a": 0.5})


class TestRepeats:
    def test_published_constant_and_what_it_implies(self) -> None:
        """R_D* = 15.387756; four epochs are worth 93 % of new data; the most is 1 + R* times the pool."""
        assert DECAY_EPOCHS == 15.387756
        assert effective_tokens(4, 1) == pytest.approx(1 + 15.387756 * (1 - math.exp(-3 / 15.387756)))
        assert effective_tokens(4, 1) / 4 == pytest.approx(0.931, abs=1e-3)
        assert effective_tokens(1e9, 1) == pytest.approx(16.387756)

    @given(st.floats(0, 1e3), st.floats(0.1, 100))
    def test_new_data_counts_whole_and_repeats_less(self, tokens: float, unique: float) -> None:
        worth = effective_tokens(tokens, unique)
        assert worth == tokens if tokens <= unique else unique < worth < tokens or worth == pytest.approx(tokens)

    def test_the_value_of_an_epoch_is_the_slope(self) -> None:
        for epoch in (1.5, 4.0, 16.387756, 40.0):
            slope = (effective_tokens(epoch + 1e-5, 1) - effective_tokens(epoch - 1e-5, 1)) / 2e-5
            assert value_of_an_epoch(epoch) == pytest.approx(slope, rel=1e-6)
        assert value_of_an_epoch(1 + DECAY_EPOCHS) == pytest.approx(1 / math.e)

    def test_nothing_cannot_be_read(self) -> None:
        with pytest.raises(LabError):
            effective_tokens(1, 0)


class TestCurricula:
    def test_edges_of_a_phase(self) -> None:
        """Step n is the first of the second phase; a resume there asks the same question and gets the same answer."""
        plan, step_tokens = Curriculum.of((1000, WEB), (500, CODE)), 100
        found = {step: plan.at_step(step, step_tokens)["math"] for step in (9, 10, 11, 14, 15, 99)}
        assert found == {9: 0.0, 10: 0.5, 11: 0.5, 14: 0.5, 15: 0.5, 99: 0.5}
        assert [plan.phase_at(token) for token in (0, 999, 1000, 1001, 1499, 1500)] == [0, 0, 1, 1, 1, 1]
        with pytest.raises(LabError):
            plan.at(-1)

    def test_anneal_and_mean(self) -> None:
        plan = anneal(WEB, CODE, 1000, 0.1)
        assert plan.starts == (0, 900, 1000)
        assert plan.mean().weights == pytest.approx({"web": 0.72, "code": 0.23, "math": 0.05})
        for share in (0, 1, 1e-9):
            with pytest.raises(LabError):
                anneal(WEB, CODE, 1000, share)

    def test_a_ramp_ends_where_it_should_and_its_mean_is_the_middle(self) -> None:
        plan = ramp(WEB, CODE, 1001, 7)
        assert (plan.phases[0].mixture.weights, plan.phases[-1].mixture.weights) == (WEB.weights, CODE.weights)
        assert plan.tokens == 1001
        assert plan.mean().weights == pytest.approx(between(WEB, CODE, 0.5).weights, abs=1e-3)

    @given(st.integers(2, 10**13), st.integers(2, 10**13))
    def test_scaling_keeps_the_total_and_the_order(self, first: int, total: int) -> None:
        plan = Curriculum.of((first, WEB), (10**12, CODE))
        try:
            scaled = plan.scaled(total)
        except LabError:
            assert min(first, 10**12) * total / plan.tokens < 1
            return
        assert scaled.tokens == total and all(a < b for a, b in pairwise(scaled.starts))

    def test_smollm3_as_published(self) -> None:
        plan = curriculum("smollm3")
        assert plan.tokens == 11_100_000_000_000
        assert plan.at(7.999e12)["code"] == pytest.approx(0.12) and plan.at(8e12)["code"] == pytest.approx(0.15)

    def test_epochs_add_over_phases(self) -> None:
        plan, pool = Curriculum.of((1000, WEB), (1000, CODE)), {"web": 1000, "code": 350, "math": 100}
        assert curricula.epochs(plan, pool) == pytest.approx({"web": 0.8, "code": 2.0, "math": 5.0})
        with pytest.raises(LabError, match=r"math would be read 5\.0 times"):
            check_epochs(plan, pool)

    def test_it_round_trips_and_a_phase_names_its_weights(self) -> None:
        plan = ramp(WEB, CODE, 1000, 3)
        assert Curriculum.from_toml(plan.to_toml()) == plan
        with pytest.raises(LabError, match="natural"):
            Curriculum.of((10, Mixture()))

    @settings(max_examples=40)
    @given(st.integers(0, 5000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
    def test_windows_taken_are_counted_as_they_come(self, count: int, parts: list[int]) -> None:
        """Equal and unequal shares, ties included, against going through the order one by one."""
        share = tuple(part / sum(parts) for part in parts)
        seen = [0] * len(share)
        for index in range(count):
            seen[order.place(index, share)[0]] += 1
        assert curricula.taken(count, share) == tuple(seen)

    @pytest.mark.parametrize("seq_len", [7, 10, 64])
    def test_each_window_of_a_domain_comes_once_and_in_turn(self, seq_len: int) -> None:
        """Through two boundaries, one of them inside a window: no window is lost or read twice."""
        plan = Curriculum.of((3_000, WEB), (2_005, CODE), (3_000, WEB))
        places = WindowOrder.of(plan, seq_len)
        numbers: dict[str, list[int]] = {"web": [], "code": [], "math": []}
        for index in range(8_005 // seq_len):
            name, number = places.place(index)
            assert plan.at(index * seq_len)[name] > 0, "a domain outside its phase"
            numbers[name].append(number)
        for found in numbers.values():
            assert found == list(range(len(found)))
        wanted = plan.domain_tokens()
        assert all(abs(len(numbers[name]) * seq_len - wanted[name]) < 4 * seq_len for name in numbers)

    def test_forgetting_what_came_before_reads_windows_twice(self) -> None:
        """Planted: numbers that begin anew in each phase."""
        places = WindowOrder.of(Curriculum.of((640, WEB), (640, WEB)), 64)
        places.__dict__["_before"] = ({"web": 0, "code": 0}, {"web": 0, "code": 0})
        found = [places.place(index) for index in range(20)]
        assert len(set(found)) < len(found)


class TestDoReMi:
    def test_one_update_by_hand(self) -> None:
        """α ∝ ½·exp(λ), then smoothed: λ = (mean of 2 and 0, mean of 1) as negative excess counts as nothing."""
        weights = DomainWeights(("a", "b"), smoothing=0.1)
        now = weights.update(np.array([2.0, -5.0, 1.0]), np.array([0, 0, 1]))
        assert now == pytest.approx([0.5, 0.5])
        now = weights.update(np.array([math.log(3), 0.0]), np.array([0, 1]))
        assert now == pytest.approx([0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05])
        assert weights.mean == pytest.approx({"a": (0.5 + 0.725) / 2, "b": (0.5 + 0.275) / 2})

    def test_tokens_are_clipped_before_they_are_averaged(self) -> None:
        """Clipping the mean instead (planted here by hand) would see no excess at all."""
        weights = DomainWeights(("a", "b"))
        excess, domain = np.array([3.0, -3.0, 0.0]), np.array([0, 0, 1])
        now = weights.update(excess, domain)
        clipped_late = np.array([max(excess[domain == d].mean(), 0) for d in (0, 1)])
        assert clipped_late.tolist() == [0, 0] and now[0] > now[1]

    def test_a_domain_that_is_absent_keeps_its_last_excess(self) -> None:
        weights = DomainWeights(("a", "b"))
        weights.update(np.array([1.0, 0.5]), np.array([0, 1]))
        weights.update(np.array([0.0]), np.array([0]))
        assert weights.excess.tolist() == [0.0, 0.5]

    @given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=30))
    def test_weights_sum_to_one_and_never_vanish(self, steps: list[list[float]]) -> None:
        weights = DomainWeights(("a", "b", "c"), smoothing=0.03)
        for excess in steps:
            now = weights.update(np.array(excess), np.arange(3))
            assert now.sum() == pytest.approx(1) and now.min() >= 0.01 - 1e-12
        assert sum(weights.mean.values()) == pytest.approx(1)

    def test_what_cannot_go_on_is_refused(self) -> None:
        with pytest.raises(LabError, match="diverged"):
            DomainWeights(("a",)).update(np.array([np.nan]), np.array([0]))
        with pytest.raises(LabError, match="smoothing"):
            DomainWeights(("a",), smoothing=1)
