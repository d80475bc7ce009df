"""Learning a mixture from proxies, on losses whose law is known: the law, its ranks, its optimum and its doubts."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from lablib.data.mixing import study
from lablib.data.mixing.laws import Array, ExpLaw, Predictor, fit_exponential, fit_process, fit_trees, fitters
from lablib.data.mixing.learned import MixingLaw, Proxies, compare, learn, opinions, optimise, refits
from lablib.data.mixing.proxies import collect, drawn, proxies
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Mixture, ModelSpec, Parallelism, Pretrain
from lablib.specs.synthetic import Caps, Synthetic, Written

BASE = {"web": 0.6, "code": 0.25, "books": 0.1, "notes": 0.05}
TRUTH = {
    "prose": ExpLaw(c=2.0, b=0.5, t=(-2.0, 0.3, -1.0, -0.2)),
    "code": ExpLaw(c=1.0, b=0.8, t=(-0.3, -3.0, 0.1, 0.0)),
}


@lru_cache(maxsize=8)
def measured(runs: int, noise: float, seed: int = 1) -> Proxies:
    """Proxies whose losses follow TRUTH, with a run's own noise."""
    weights, draw = drawn(BASE, runs, seed), np.random.default_rng(seed)
    return Proxies(tuple(BASE), weights, {n: law.predict(weights) + draw.normal(0, noise, runs) for n, law in TRUTH.items()})  # fmt: skip


def grid(steps: int = 40) -> Array:
    """Every mixture of four domains in steps of 1/steps."""
    cells = [c for c in product(range(steps + 1), repeat=3) if sum(c) <= steps]
    return np.array([(*c, steps - sum(c)) for c in cells]) / steps


class TestLaws:
    def test_the_exponential_law_finds_itself(self) -> None:
        """Without noise the very function comes back: on unseen mixtures to four digits, and its floor."""
        known, fresh = measured(24, 0.0), drawn(BASE, 200, 9)
        for target, law in TRUTH.items():
            found = fit_exponential(known.weights, known.losses[target])
            assert np.abs(found.predict(fresh) - law.predict(fresh)).max() < 2e-3
            assert found.c == pytest.approx(law.c, abs=0.1)

    def test_its_gradient_is_the_slope(self) -> None:
        at = np.array([0.4, 0.3, 0.2, 0.1])
        for law in (TRUTH["prose"], TRUTH["code"].replace(root=True)):
            for i in range(4):
                step = np.eye(4)[i] * 1e-6
                assert law.gradient(at)[i] == pytest.approx(float(law.predict(at + step) - law.predict(at - step)) / 2e-6, rel=1e-5)  # fmt: skip

    @pytest.mark.parametrize("name", fitters())
    def test_every_way_ranks_unseen_mixtures(self, name: str) -> None:
        known, fresh = measured(48, 0.005), drawn(BASE, 200, 9)
        told = fitters()[name](known.weights, known.losses["prose"]).predict(fresh)
        assert spearmanr(told, TRUTH["prose"].predict(fresh)).statistic > (0.6 if name == "LightGBM" else 0.97)

    def test_a_process_goes_through_its_runs_and_doubts_far_from_them(self) -> None:
        known = measured(40, 0.0)
        process = fit_process(known.weights, known.losses["prose"])
        assert np.abs(process.predict(known.weights) - known.losses["prose"]).max() < 0.01
        near = process.deviation(known.weights[:1])[0]
        corner = process.deviation(np.array([[0.0, 0.0, 0.0, 1.0]]))[0]
        assert 0 <= near < corner

    def test_a_process_against_the_textbook_by_inversion(self) -> None:
        """k·K⁻¹·y written out, with the hyperparameters that it chose."""
        known, fresh = measured(24, 0.01), np.array([[0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]])
        losses = known.losses["code"]
        process = fit_process(known.weights, losses)
        line, curve, length, noise = np.exp(2 * np.array(process.hyper))

        def kernel(a: Array, b: Array) -> float:
            left, right = np.sqrt(a), np.sqrt(b)
            return float(line * left @ right + curve * np.exp(-((left - right) ** 2).sum() / (2 * length)))

        gram = np.array([[kernel(a, b) for b in known.weights] for a in known.weights]) + noise * np.eye(24)
        cross = np.array([[kernel(a, b) for b in known.weights] for a in fresh])
        wanted = losses.mean() + cross @ np.linalg.inv(gram) @ (losses - losses.mean())
        assert process.predict(fresh) == pytest.approx(wanted, rel=1e-4)

    @pytest.mark.skipif(find_spec("lightgbm") is not None, reason="lightgbm is here")
    def test_trees_say_what_to_install(self) -> None:
        with pytest.raises(LabError, match="pip install lightgbm"):
            fit_trees(measured(24, 0.0).weights, measured(24, 0.0).losses["code"])

    @pytest.mark.parametrize(
        ("weights", "losses", "said"),
        [
            (np.ones((3, 1)), np.ones(3), "too few"),
            (np.full((5, 2), 0.4), np.ones(5), "sum to 1"),
            (np.full((5, 2), 0.5), np.array([1, 2, 3, 4, np.nan]), "not finite"),
            (np.full((5, 2), 0.5), np.ones(4), "runs, domains"),
        ],
    )
    def test_runs_that_cannot_be_fitted_are_refused(self, weights: Array, losses: Array, said: str) -> None:
        for fit in (fit_exponential, fit_process):
            with pytest.raises(LabError, match=said):
                fit(weights, losses)

    def test_equal_losses_give_a_flat_law(self) -> None:
        found = fit_exponential(measured(24, 0.0).weights, np.full(24, 2.0))
        assert found.predict(grid(4)) == pytest.approx(2.0, abs=1e-3)


class TestHoldOut:
    def test_held_out_runs_are_never_seen(self) -> None:
        """What a fit is given and what it is scored on have no run in common."""
        seen: list[Array] = []

        def watched(weights: Array, losses: Array) -> Predictor:
            seen.append(np.column_stack([weights, losses]))
            return fit_exponential(weights, losses)

        known = measured(32, 0.01)
        _, held = known.split(0.25, seed=3)
        compare(known, 0.25, 3, {"watched": watched})
        fitted = {row.tobytes() for rows in seen for row in rows[:, :4]}
        assert len(held) == 8 and not fitted & {row.tobytes() for row in held.weights}

    def test_the_hold_out_is_drawn_without_looking(self) -> None:
        known = measured(32, 0.01)
        other = Proxies(known.domains, known.weights, {"prose": -known.losses["prose"]})
        assert (known.split(seed=5)[1].weights == other.split(seed=5)[1].weights).all()

    def test_scores_of_a_known_law_are_high_and_of_noise_are_not(self) -> None:
        for score in compare(measured(64, 0.005)):
            if score.fitter != "LightGBM":
                assert score.spearman > 0.9 and score.rmse < score.constant_rmse and (score.fitted, score.held_out) == (48, 16)  # fmt: skip
        draw, known = np.random.default_rng(0), measured(64, 0.0)
        noise = Proxies(known.domains, known.weights, {"noise": draw.normal(size=64)})
        assert abs(np.mean([compare(noise, seed=s, ways={"e": fit_exponential})[0].spearman for s in range(8)])) < 0.4


class TestOptimum:
    def test_it_is_the_best_of_all_mixtures_on_a_grid(self) -> None:
        law = learn(measured(24, 0.0))
        best = optimise(law, BASE)
        true = np.mean([t.predict(grid()) for t in TRUTH.values()], axis=0)
        at = law.array(best.mixture.weights)
        assert np.mean([float(t.predict(at)) for t in TRUTH.values()]) <= true.min() + 1e-3
        assert best.gain > 0.05

    def test_box_and_epochs_hold_and_bind(self) -> None:
        """Of code there are four passes of a fifth of the run, less than the law would take."""
        law, pool = learn(measured(24, 0.0)), {"web": 1e9, "code": 5e6, "books": 1e9, "notes": 1e9}
        best = optimise(law, BASE, low={"notes": 0.1}, tokens=1e8, available=pool).mixture
        assert optimise(law, BASE).mixture.weights["code"] > 0.25
        assert best.weights["code"] == pytest.approx(0.2, abs=1e-6) and best.weights["notes"] >= 0.1 - 1e-9
        assert sum(best.weights.values()) == pytest.approx(1)
        inside = grid()[(grid()[:, 1] <= 0.2) & (grid()[:, 3] >= 0.1)]
        assert law.objective(law.array(best.weights)) <= law.objective(inside).min() + 1e-6
        with pytest.raises(LabError, match="fewer tokens"):
            optimise(law, BASE, tokens=1e12, available=dict.fromkeys(BASE, 1e6))

    def test_a_cap_on_synthetic_text_binds_where_it_costs_least(self) -> None:
        """Against every mixture of a grid that keeps it."""
        law, parts = learn(measured(24, 0.0)), {"code": 0.9, "notes": 0.5}
        models = {name: Written(share=part, generation=1) for name, part in parts.items()}
        cap = 0.6 * sum(part * optimise(law, BASE).mixture.weights.get(name, 0.0) for name, part in parts.items())
        written = Synthetic(domains=models, caps=Caps(corpus=cap))
        best = optimise(law, BASE, written=written).mixture.weights
        spent = sum(part * best.get(name, 0.0) for name, part in parts.items())
        assert spent == pytest.approx(cap, rel=1e-3) and written.against(best) == ""
        tried = grid()
        kept = tried[tried @ [parts.get(name, 0.0) for name in law.domains] <= cap]
        kept = kept[((kept >= law.lowest) & (kept <= law.highest)).all(1)]
        assert len(kept) > 20 and law.objective(law.array(best)) <= min(law.objective(row) for row in kept) + 1e-6

    def test_importance_moves_it(self) -> None:
        for target, domain in (("prose", "web"), ("code", "code")):
            best = optimise(learn(measured(24, 0.0), {target: 1.0}), BASE).mixture.weights
            assert max(best, key=lambda name: best[name]) == domain
        with pytest.raises(LabError, match="the proxies measured prose, code"):
            learn(measured(24, 0.0), {"maths": 1.0})

    def test_doubt_grows_with_noise_and_covers_the_truth(self) -> None:
        widths = []
        for noise in (0.002, 0.05):
            known = measured(40, noise)
            law = learn(known)
            best = optimise(law, BASE, again=refits(known, law, 30))
            assert best.gain_range is not None
            low, high = best.gain_range
            widths.append(high - low)
            at, base = law.array(best.mixture.weights), law.array(BASE)
            true = np.mean([float(t.predict(base) - t.predict(at)) for t in TRUTH.values()])
            assert low - 0.02 <= true <= high + 0.02
            assert all(a <= b for a, b in best.spread.values()) and set(best.spread) == set(BASE)
        assert widths[1] > 3 * widths[0]

    def test_second_opinions_are_near_the_true_gain(self) -> None:
        """Of a mixture that the proxies surround; the process does not share the law's form."""
        known, better = measured(48, 0.002), {"web": 0.4, "code": 0.4, "books": 0.15, "notes": 0.05}
        law = learn(known)
        at, base = law.array(better), law.array(BASE)
        true = np.mean([float(t.predict(base) - t.predict(at)) for t in TRUTH.values()])
        told = opinions(known, law, better, BASE)
        assert told["exponential"] == pytest.approx(true, abs=0.005)
        assert told["Gaussian process"] == pytest.approx(true, abs=0.01)
        assert all(abs(gain - true) < 0.1 for gain in told.values())

    def test_it_stays_among_what_was_tried_unless_told(self) -> None:
        """Proxies with little code cannot say that all code is best, though the law fitted on them does."""
        near = drawn(BASE, 24, 1, strength=(20, 30))
        known = Proxies(tuple(BASE), near, {"code": TRUTH["code"].predict(near)})
        law = learn(known)
        inside, outside = optimise(law, BASE), optimise(law, BASE, extrapolate=True)
        assert inside.mixture.weights["code"] == pytest.approx(near[:, 1].max(), abs=1e-6) and not inside.beyond
        assert outside.mixture.weights["code"] > 0.9 and "code" in outside.beyond
        with pytest.raises(LabError, match="extrapolate=True"):
            optimise(law, BASE, high={"web": 0.01, "books": 0.01})

    def test_it_says_where_no_proxy_has_been(self) -> None:
        law = learn(measured(24, 0.0)).replace(lowest=(0.5,) * 4, highest=(1.0,) * 4)
        assert law.beyond(np.array([0.6, 0.2, 0.5, 0.9])) == ("code",)

    def test_a_wrong_sign_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Planted: a gradient that points uphill makes the optimum worse than the grid's."""
        law = learn(measured(24, 0.0))
        good = float(law.objective(law.array(optimise(law, BASE).mixture.weights)))
        slope = MixingLaw.slope
        monkeypatch.setattr(MixingLaw, "slope", lambda self, w: -slope(self, w))
        assert float(law.objective(law.array(optimise(law, BASE).mixture.weights))) > good + 1e-3

    def test_a_law_round_trips_and_names_what_it_does_not_know(self) -> None:
        law = learn(measured(24, 0.0))
        assert MixingLaw.from_json(law.to_json()) == law
        with pytest.raises(LabError, match="knows no wiki"):
            law.predict({"wiki": 1.0})
        with pytest.raises(LabError, match="one a domain"):
            law.replace(domains=("a", "b"))


class TestProxies:
    RECIPE = Pretrain(
        model=ModelSpec(layers=2, hidden=64, heads=4, kv_heads=2, ffn=160, vocab=300, max_seq_len=64),
        tokens=10_240, seq_len=32, batch_tokens=1024, parallelism=Parallelism(micro_batch_size=4), precision="fp32",
    )  # fmt: skip

    def test_they_are_the_recipe_but_for_the_mixture(self) -> None:
        made = proxies(self.RECIPE, BASE, 12, seed=4)
        assert len({one.science_hash for one in made}) == 12 and made == proxies(self.RECIPE, BASE, 12, seed=4)
        assert made[0].mixture.weights == BASE
        assert all(one.replace(mixture=Mixture(), name="pretrain") == self.RECIPE for one in made)

    def test_draws_are_around_the_base_and_reach_far(self) -> None:
        draws = drawn(BASE, 4000, 0)
        assert draws.sum(1) == pytest.approx(1)
        assert draws.mean(0) == pytest.approx(list(BASE.values()), abs=0.02)
        assert draws[:, 0].min() < 0.05 and draws[:, 0].max() > 0.99 and (draws[:, 3] == 0).mean() > 0.1

    def test_none_reads_a_domain_too_often(self) -> None:
        pool = {"web": 1e6, "code": 1e6, "books": 1e6, "notes": 300.0}
        for one in proxies(self.RECIPE, BASE, 30, available=pool):
            assert 10_240 * one.mixture.weights.get("notes", 0) <= 4 * 300 * (1 + 1e-9)

    def test_a_base_that_is_no_mixture_is_refused(self) -> None:
        with pytest.raises(LabError, match="must sum to 1"):
            drawn({"a": 0.5, "b": 0.2}, 3)

    def test_results_are_read_from_runs_and_unfinished_ones_left_out(self, tmp_path: Path) -> None:
        recipes, runs = proxies(self.RECIPE, BASE, 6, seed=2), []
        for number, recipe in enumerate(recipes):
            recorder = Recorder.create(tmp_path, recipe)
            if number != 3:
                recorder.log(9 if number == 5 else 10, stream="eval", bits_per_byte=2.0 + number, loss=1.0)
            runs.append(Run.open(recorder.path))
        found = collect(runs)
        assert found.losses["held-out"].tolist() == [2.0, 3.0, 4.0, 6.0], "4 has no row, 6 none of its last step"
        assert dict(zip(found.domains, found.weights[0], strict=True)) == BASE
        with pytest.raises(LabError, match="none of 6 runs"):
            collect(runs, {"code": "bits_per_byte.code"})

    def test_an_arm_that_was_stopped_is_no_finished_one(self, tmp_path: Path) -> None:
        law = MixingLaw(domains=("web",), laws={"web": ExpLaw(c=0, b=0, t=(-1,))}, importance={"web": 1.0}, runs=4)
        runs = []
        for steps in (10, 9):
            recorder = Recorder.create(tmp_path, self.RECIPE)
            recorder.log(steps, stream="eval", **{"bits_per_byte.web": 2.0})
            runs.append(Run.open(recorder.path))
        assert study.arm("natural", Mixture(), runs[:1], law).objective == (2.0,)
        assert study.domains_of(runs) == {"web": "bits_per_byte.web"}
        with pytest.raises(LabError, match="without held-out figures"):
            study.arm("natural", Mixture(), runs, law)


def test_scipy_is_not_loaded_for_the_rules() -> None:
    """A screen that shows a law does not wait for it either."""
    import subprocess
    import sys

    code = "import sys, lablib.data.mixing.learned; assert not {'scipy', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
