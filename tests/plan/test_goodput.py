"""Goodput: closed forms, an event simulation, and what large runs published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.plan import Range, estimate, goodput
from lablib.specs import Cluster, LabError, Parallelism, Pretrain

NO_SLOWNESS = Range.exactly(1.0)
"""Published "effective training time" counts interruptions, not how fast the steps were."""


def observed(name: str) -> Range:
    return Range.exactly(next(one.rate for one in goodput.PUBLISHED if name in one.name))


def test_youngs_and_dalys_intervals() -> None:
    assert goodput.young(50, 3600) == pytest.approx(math.sqrt(2 * 50 * 3600)) == 600
    # Daly 2006 eq. 37, written out: sqrt(2δM)·[1 + 1/3·sqrt(δ/2M) + 1/9·(δ/2M)] − δ
    by_hand = 600 * (1 + math.sqrt(50 / 7200) / 3 + 50 / 7200 / 9) - 50
    assert goodput.daly(50, 3600) == pytest.approx(by_hand)
    assert goodput.daly(9000, 3600) == 3600
    assert goodput.daly(1e-6, 1e6) == pytest.approx(goodput.young(1e-6, 1e6), rel=1e-3)


@given(st.floats(1, 300), st.floats(3600, 1e6), st.floats(0, 1800))
def test_the_optimum_is_one(save: float, between: float, restart: float) -> None:
    best = goodput.daly(save, between)
    at = goodput.stretch(best, save, restart, between)
    exact = min(goodput.stretch(best * k, save, restart, between) for k in np.linspace(0.3, 3, 55))
    assert at <= exact * 1.003


def test_without_failures_only_saving_costs() -> None:
    assert goodput.stretch(1000.0, 10.0, 600.0, 1e12) == pytest.approx(1.01)
    rare = goodput.stretch(1000.0, 10.0, 600.0, 1e6)
    assert rare == pytest.approx(1.01 + (600 + 505) / 1e6, rel=1e-3)  # a restart and half an interval each


CASES = [(16384, 5, 600, 300), (16384, 60, 600, 1200), (1024, 40, 900, 5000), (4096, 20, 1800, 20000)]


@pytest.mark.parametrize(("gpus", "save", "restart", "interval"), CASES)
def test_dalys_model_is_what_a_simulation_of_failures_gives(
    gpus: int, save: float, restart: float, interval: float
) -> None:
    ratio, error = goodput.simulate(gpus, save, restart, interval, 2e-5, useful=30 * 86400, runs=48)
    assert goodput.overhead(gpus, save, 2e-5, restart, 1.0, interval) == pytest.approx(ratio, abs=4 * error + 2e-3)


def test_llama_3_kept_over_nine_tenths_of_its_time() -> None:
    run = goodput.of(16384, 12 * 405e9, failures=observed("Llama 3"), slow=NO_SLOWNESS)
    assert 0.90 < run.effective.mid < 0.96  # "higher than 90 %", arXiv 2407.21783 §3.3.4
    assert run.hours_between_failures == pytest.approx(3.1, abs=0.1)


def test_bloom_lost_little_to_a_checkpoint_every_three_hours() -> None:
    run = goodput.of(384, 2.3e12, 3 * 3600, failures=observed("BLOOM"), slow=NO_SLOWNESS)
    assert run.save_seconds == pytest.approx(40, rel=0.25)
    assert run.hours_between_failures == pytest.approx(112, rel=0.02)  # one or two a week
    assert run.effective.mid > 0.97  # "did not affect throughput significantly", arXiv 2211.05100 §3.4.4


def test_opt_with_restarts_by_hand_lost_a_tenth() -> None:
    by_hand = Range(low=1800, mid=3600, high=4 * 3600)
    run = goodput.of(992, 14 * 175e9, failures=observed("OPT"), restart=by_hand, slow=NO_SLOWNESS)
    assert run.hours_between_failures == pytest.approx(13, abs=0.2)  # 105 restarts in 57 days
    assert 0.85 < run.effective.mid < 0.93


def test_the_research_clusters_mean_time_between_failures() -> None:
    assert 1 / (16384 * observed("RSC-1").mid) == pytest.approx(1.8)  # arXiv 2410.21680
    assert goodput.FAILURES.low < np.median([one.rate for one in goodput.PUBLISHED]) < goodput.FAILURES.high
    inside = sum(one.rate in goodput.FAILURES for one in goodput.PUBLISHED)
    assert inside / len(goodput.PUBLISHED) >= 0.7


def test_parts_add_up_and_every_cause_costs() -> None:
    run = goodput.of(4096, 12 * 70e9, evaluation=0.01, ramp=0.02)
    assert run.effective.mid + sum(run.parts.values()) == pytest.approx(1)
    assert all(share > 0 for share in run.parts.values())
    assert run.effective.low < run.effective.mid < run.effective.high <= 1
    assert "useful" in str(run) and "slow steps" in str(run)


def test_saves_are_shorter_when_asynchronous() -> None:
    size = 12 * 70e9
    assert goodput.save_seconds(size, 1024, asynchronous=True) < goodput.save_seconds(size, 1024) / 50
    assert goodput.save_seconds(size, 1024, bandwidth=1e9) == pytest.approx(840)
    assert (
        goodput.of(16384, size, asynchronous=True).effective.mid > goodput.of(16384, size, bandwidth=5e10).effective.mid
    )


def test_more_accelerators_keep_less() -> None:
    kept = [goodput.of(gpus, 12 * 70e9).effective.mid for gpus in (8, 512, 4096, 32768)]
    assert kept == sorted(kept, reverse=True)


def test_many_jobs_at_once() -> None:
    gpus = np.array([8, 512, 16384])
    many = goodput.overhead(gpus, 20.0, 2e-5, 600.0, 1.0)
    alone = [goodput.overhead(int(n), 20.0, 2e-5, 600.0, 1.0) for n in gpus]
    assert many == pytest.approx(alone)


@pytest.mark.parametrize("wrong", [{"gpus": 0}, {"interval": 0.0}, {"checkpoint_bytes": -1.0}])
def test_what_cannot_be_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(LabError, match="positive numbers"):
        goodput.of(**{"gpus": 8, "checkpoint_bytes": 1e9, **wrong})  # type: ignore[arg-type]


def recipe(**changes: object) -> Pretrain:
    base = {"model": "llama-3-8b", "tokens": "15T", "seq_len": 8192, "batch_tokens": "16M", "parallelism": Parallelism(dp_shard=1024)}  # fmt: skip
    return Pretrain(**{**base, **changes})


LARGE = Cluster(accelerator="h100-sxm", nodes=128)


def test_an_estimate_carries_its_goodput_and_the_account_of_it() -> None:
    plan = estimate(recipe(), LARGE)
    assert plan.goodput is not None
    useful = plan.steps * plan.step_seconds / 86400
    assert plan.days.mid == pytest.approx(useful / plan.goodput.effective.mid, rel=0.01)
    assert {"failures", "checkpoint_interval", "goodput"} <= {entry.name for entry in plan.ledger}
    assert "Daly" in plan.explain() and "Llama 3 405B" in plan.explain()


def test_rare_checkpoints_are_said_and_priced() -> None:
    left_open, chosen, rare = (estimate(recipe(checkpoint_every=every), LARGE) for every in (None, 300, 50_000))
    assert any("set checkpoint_every=" in warning for warning in left_open.warnings)
    assert not any("checkpoint_every" in warning for warning in chosen.warnings)
    assert any("is the optimum" in warning for warning in rare.warnings)
    assert rare.gpu_hours.mid > 1.2 * chosen.gpu_hours.mid


def test_independent_errors_join_in_quadrature() -> None:
    one, other = Range(low=0.5, mid=1.0, high=2.0), Range(low=0.25, mid=1.0, high=4.0)
    joined = one.joined(other)
    assert joined.high == pytest.approx(2 ** math.sqrt(5)) and joined.low == pytest.approx(1 / joined.high)
    assert one.times(other).high == 8
    assert one.joined(Range.exactly(3.0)).high == pytest.approx(6)


def test_a_plan_of_asynchronous_checkpoints_is_held_up_by_the_copy_alone() -> None:
    held, beside = (estimate(recipe(checkpoint_every=50, async_checkpoints=copied), LARGE) for copied in (False, True))
    assert held.goodput and beside.goodput
    assert held.goodput.save_seconds / beside.goodput.save_seconds == pytest.approx(goodput.SNAPSHOT / goodput.STORAGE)
    assert beside.days.mid < held.days.mid and beside.goodput.optimum_seconds < held.goodput.optimum_seconds
