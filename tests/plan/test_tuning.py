"""The search for a rate under μP: the proxies keep what the rate depends on, and the parabola is SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import t as student

from lablib.plan.tuning import cost, proxies, rates_about, search, valley
from lablib.specs import Cluster, LabError, ModelSpec, Optimizer, Parallelism, Pretrain, catalog
from lablib.specs.recipe import MuP

MODEL = catalog.models["qwen3-8b"].replace(tied_embeddings=False)
TARGET = Pretrain(
    model=MODEL,
    tokens="200B",
    batch_tokens="2M",
    seq_len=4096,
    parallelism=Parallelism(dp_shard=64, tp=2),
    precision="bf16",
)
NODE = Cluster(accelerator="h100-sxm", nodes=16, gpus_per_node=8)


def test_a_proxy_is_the_target_made_narrow() -> None:
    made = proxies(TARGET, (512, 256), rates=(4e-3, 1e-3, 2e-3), tokens=10**9, seeds=2)
    assert [(one.model.hidden, one.optimizer.learning_rate, one.seed) for one in made[:3]] == [(256, 1e-3, 0), (256, 1e-3, 1), (256, 2e-3, 0)]  # fmt: skip
    assert len(made) == len({one.name for one in made}) == len({one.science_hash for one in made}) == 12
    for one in made:
        assert one.mup == MuP(hidden=256) and one.model == MODEL.widened(one.model.hidden)
        assert one.step_tokens == TARGET.step_tokens and one.schedule == TARGET.schedule and one.gpus == 1
    shallow = proxies(TARGET, (256,), layers=4)
    assert {one.model.layers for one in shallow} == {4} and shallow[0].mup == MuP(hidden=256, layers=4)
    assert len(shallow) == 7 and shallow[0].steps >= 100


def test_rates_go_about_the_laws_twice_each() -> None:
    rates = rates_about(TARGET, 256)
    assert np.array(rates[1:]) / np.array(rates[:-1]) == pytest.approx(2.0, rel=0.01)
    assert rates[0] < 1e-2 < rates[-1] * 3


def test_cost_is_the_share_of_the_target() -> None:
    made = proxies(TARGET, (256, 512), rates=(1e-3, 2e-3, 4e-3), tokens=TARGET.tokens)
    found = cost(made, TARGET, NODE)
    assert found.runs == 6 and found.share == pytest.approx(search(made, [1.0, 0.9, 1.0] * 2, TARGET).flops / found.target_flops)  # fmt: skip
    same = cost([TARGET, TARGET], TARGET, NODE)
    assert (same.share, same.share_of_hours) == (pytest.approx(2.0), pytest.approx(2.0))
    assert "200.000%" in str(same) and "$" in str(same)


RATES = 2.0 ** np.arange(-12, -5)


def test_the_bottom_and_its_interval_are_scipys() -> None:
    draw = np.random.default_rng(0)
    rates = np.repeat(RATES, 2)
    losses = 3 + 0.02 * (np.log2(rates) + 8.7) ** 2 + draw.normal(0, 0.003, len(rates))
    found = valley(256, rates, losses)
    near = np.isin(rates, RATES[1:6])
    (_, _, bottom), spread = curve_fit(lambda x, a, c, v: a + c * (x - v) ** 2, np.log2(rates[near]), losses[near], (3, 0.02, -9))  # fmt: skip
    half = student.ppf(0.975, near.sum() - 3) * np.sqrt(spread[2, 2])
    assert found.low and found.high and found.low < 2**-8.7 < found.high
    assert np.log2([found.rate, found.low, found.high]) == pytest.approx(
        [bottom, bottom - half, bottom + half], abs=1e-4
    )


def test_an_edge_a_cliff_and_a_hill_are_said() -> None:
    assert "lowest rate" in valley(64, RATES, np.log2(RATES)).edge
    cliff = np.where(RATES < 2.0**-8.5, -np.log2(RATES), np.nan)
    assert "highest rate that did not diverge, 0.002" in valley(64, RATES, cliff).edge
    three = valley(64, RATES[:3], np.array([1.0, 0.9, 1.0]))
    assert (three.rate, three.low) == (pytest.approx(RATES[1]), None)
    with pytest.raises(LabError, match="2 of 7 rates have a loss"):
        valley(64, RATES, np.where(RATES < 2.0**-10.5, 1.0, np.nan))
    draw = np.random.default_rng(0)
    lucky = [valley(64, RATES, 3 + draw.normal(0, 1e-3, 7)) for _ in range(200)]  # of noise alone
    assert not any(one.high and one.high / one.rate > 16 for one in lucky)
    assert "by no more than their noise" in " ".join(one.edge for one in lucky)


def test_a_rate_of_which_one_seed_diverged_is_no_point_of_the_parabola() -> None:
    rates, losses = np.repeat(RATES, 2), np.repeat(3 + 0.02 * (np.log2(RATES) + 9) ** 2, 2)
    losses[8], losses[9] = np.nan, 2.0  # the survivor alone would have the parabola's bottom
    assert valley(64, rates, losses).rate == pytest.approx(2.0**-9)


def found(shift: float) -> Any:
    made = proxies(TARGET, (256, 512), rates=list(RATES), tokens=10**9)
    losses = [
        3 + 0.02 * (np.log2(one.optimizer.learning_rate) + 9 + shift * (one.model.hidden == 512)) ** 2 for one in made
    ]
    noise = np.random.default_rng(1).normal(0, 0.001, len(losses))
    return search(made, list(losses + noise), TARGET)


def test_what_transfers_is_filled_in_and_what_moves_is_named() -> None:
    good, moved = found(0.0), found(1.0)
    assert "no more than its intervals allow" in good.verdict and "it does not transfer" in moved.verdict
    assert moved.drift == pytest.approx(-1.0, abs=0.15)
    tuned = good.filled(TARGET)
    assert tuned.mup == MuP(hidden=256) and tuned.optimizer.learning_rate == pytest.approx(2**-9, rel=0.1)
    assert type(good).from_json(good.to_json()) == good
    made = proxies(TARGET, (256,), rates=list(RATES), tokens=10**9)
    with pytest.raises(LabError, match=r"lowest rate.*--low"):
        search(made, [float(n) for n in range(7)], TARGET).filled(TARGET)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [({}, {"widths": (4096,)}, "no width below the target's hidden=4096"), ({}, {"widths": (200,)}, "multiples of 128"),
     ({}, {"widths": (0,)}, "widths: 0"), ({}, {"widths": (256,), "seeds": 0}, "at least 1 seed"),
     ({}, {"widths": (256,), "rates": (1e-3, 2e-3, 1e-3)}, "at least 3 different"), ({}, {"widths": (256,), "tokens": 0}, "tokens"),
     ({}, {"widths": (256,), "rates": (1e-3, 2e-3, float("inf"))}, "finite"),
     ({}, {"widths": (256,), "tokens": 10_000_000}, "5 steps"), ({}, {"widths": ()}, "at least one"),
     ({"optimizer": Optimizer(kind="muon")}, {"widths": (256,)}, "adamw"),
     ({"model": catalog.models["qwen3-0.6b"]}, {"widths": (256,)}, "tied_embeddings=False")],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(changes: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        proxies(TARGET.replace(**changes), **settings)


@pytest.mark.parametrize("width", [0, -128, 100, 4096])
def test_no_rate_is_named_for_what_is_no_width(width: int) -> None:
    with pytest.raises(LabError, match=f"widths: {width}"):
        rates_about(TARGET, width)


def test_a_model_keeps_a_head_when_it_is_narrow() -> None:
    spec = ModelSpec(layers=1, hidden=512, heads=8, kv_heads=2, ffn=1024, vocab=64).widened(64)
    assert (spec.heads, spec.kv_heads, spec.head_dim, spec.ffn) == (1, 1, 64, 128)
