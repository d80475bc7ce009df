"""Loss laws against published optima, the fit against a law it must find again, and forecasts as curves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.plan import EPOCH, HOFFMANN, Forecast, Law, estimate, forecast
from lablib.plan.laws import LADDER, fit
from lablib.runs import Recorder
from lablib.specs import SFT, Cluster, ModelSpec, Parallelism, Prepare, Pretrain, Schedule, Task

OPTIMA = [
    # law, FLOPs, N*, D*, L*: computed independently from the constants of the cited papers
    (HOFFMANN, 1e18, 8.0582e7, 2.06829e9, 3.535298),
    (HOFFMANN, 1e22, 5.16047e9, 3.22968e11, 2.138614),
    (HOFFMANN, 5.76e23, 3.21899e10, 2.98231e12, 1.930748),
    (HOFFMANN, 1e26, 3.30477e11, 5.04322e13, 1.799063),
    (EPOCH, 1e18, 8.0619e7, 2.06734e9, 3.489115),
    (EPOCH, 1e22, 9.05719e9, 1.84016e11, 2.140527),
    (EPOCH, 5.76e23, 7.23527e10, 1.32683e12, 1.973973),
    (EPOCH, 1e26, 1.01754e12, 1.63794e13, 1.879506),
]


@pytest.mark.parametrize(("law", "flops", "params", "tokens", "loss"), OPTIMA)
def test_optima_are_the_published_laws(law: Law, flops: float, params: float, tokens: float, loss: float) -> None:
    n, d = law.optimum(flops)
    assert (n, d) == (pytest.approx(params, rel=1e-4), pytest.approx(tokens, rel=1e-4))
    assert float(law.loss(n, d)) == pytest.approx(loss, abs=1e-5)
    assert 6 * n * d == pytest.approx(flops)


@given(st.sampled_from([HOFFMANN, EPOCH]), st.floats(1e18, 1e26), st.floats(1.05, 10))
def test_no_other_split_of_the_same_compute_is_better(law: Law, flops: float, factor: float) -> None:
    n, d = law.optimum(flops)
    best = float(law.loss(n, d))
    assert best < float(law.loss(n * factor, d / factor))
    assert best < float(law.loss(n / factor, d * factor))


def test_a_fit_finds_the_law_that_made_the_points() -> None:
    sizes, tokens = (x.ravel() for x in np.meshgrid([3e5, 1e6, 3e6, 1e7], [3e5, 1e6, 3e6, 1e7]))
    losses = 1.6 + 60 / sizes**0.3 + 90 / tokens**0.32
    e, a, alpha, b, beta, spread = fit(sizes, tokens, losses, floor=1.5)
    assert spread < 1e-3
    again = e + a / 2e6**alpha + b / 2e6**beta
    assert again == pytest.approx(1.6 + 60 / 2e6**0.3 + 90 / 2e6**0.32, rel=2e-3)
    assert alpha == pytest.approx(0.3, abs=0.05) and beta == pytest.approx(0.32, abs=0.05)


SMALL = ModelSpec(
    family="qwen3", layers=4, hidden=128, heads=2, kv_heads=1, head_dim=64, ffn=384, vocab=4096, tied_embeddings=True
)


def recipe(**changes: object) -> Pretrain:
    base = {
        "model": SMALL,
        "tokens": 2**21,
        "seq_len": 256,
        "batch_tokens": 4096,
        "parallelism": Parallelism(micro_batch_size=16),
    }
    return Pretrain(**{**base, **changes})


def test_a_forecast_is_a_falling_band_over_the_whole_run() -> None:
    curve = forecast(recipe())
    assert curve is not None
    assert (curve.step[0], curve.step[-1]) == (1, 512) and curve.tokens[-1] == 2**21
    assert all(point.low < point.mid < point.high for point in curve.points)
    assert all(later <= earlier + 1e-9 for earlier, later in zip(curve.mid, curve.mid[1:], strict=False))
    assert curve.mid[0] == pytest.approx(math.log(4096), rel=1e-3)
    assert curve.high[0] / curve.low[0] > curve.high[-1] / curve.low[-1]
    assert Forecast.from_json(curve.to_json()) == curve


@given(st.integers(1, 2), st.integers(2, 3))
def test_more_tokens_or_a_larger_model_end_lower(millions: int, factor: int) -> None:
    base = forecast(recipe(tokens=millions * 10**6))
    more = forecast(recipe(tokens=millions * factor * 10**6))
    larger = forecast(recipe(tokens=millions * 10**6, model=SMALL.replace(layers=4 * factor)))
    assert base and more and larger
    assert more.final.mid < base.final.mid and larger.final.mid < base.final.mid


def test_the_decay_brings_the_curve_down_to_the_law() -> None:
    large = {"model": "llama-3.2-1b", "data": "hf:web", "tokens": "30B", "batch_tokens": 256 * 16 * 64}
    flat, late = (forecast(recipe(**large, schedule=Schedule(kind=kind, decay=0.2))) for kind in ("wsd", "cosine"))
    assert flat and late
    assert flat.final.mid == pytest.approx(late.final.mid)
    middle = next(i for i, step in enumerate(flat.step) if step > 0.6 * flat.step[-1])
    assert flat.step[middle] == late.step[middle] < 0.8 * flat.step[-1]
    assert flat.mid[middle] > late.mid[middle]


def test_another_vocabulary_or_scale_is_not_the_ladders() -> None:
    for changes in ({"model": SMALL.replace(vocab=8192)}, {"tokens": "10B"}, {"data": "some/folder"}):
        curve = forecast(recipe(**changes))
        assert curve is not None and "MassiveText" in curve.basis


def test_far_from_the_ladder_the_band_is_wider() -> None:
    near, far = (forecast(recipe(tokens=tokens)) for tokens in ("2M", "8M"))
    assert near and far and "core" in far.basis
    assert far.final.high / far.final.low > near.final.high / near.final.low
    assert LADDER.outside(1e6, 1e6) == 0 and LADDER.outside(1e6, 2.05e6 * math.e) == pytest.approx(1)


def test_the_ladder_is_its_own_curves() -> None:
    # Held-out losses at the ends of three of its runs (docs/log.md, 2026-11-23): parameters, steps, nats a token.
    for params, steps, heldout in ((369_216, 500, 4.497), (1_312_384, 250, 4.939), (1_312_384, 500, 4.295)):
        assert float(LADDER.loss(params, steps * 4096)) == pytest.approx(heldout, rel=0.05)


def test_the_basis_says_what_data_the_law_holds_for(tmp_path: Path) -> None:
    own = forecast(recipe())
    hub = forecast(recipe(model="llama-3.2-1b", data="hf:fineweb", tokens="30B", batch_tokens=256 * 16 * 64))
    assert own and hub
    assert "core" in own.basis and "MassiveText" in hub.basis
    assert "only the shape is borrowed" in hub.basis
    made = Recorder.create(tmp_path, Prepare(corpus="core"))
    other = Recorder.create(tmp_path, Prepare(corpus="hf:fineweb"))
    refs = [{"run": maker.path.name, "artefact": "data", "science": "x"} for maker in (made, other)]
    known, unknown = (forecast(recipe(data=ref), root=tmp_path) for ref in refs)
    assert known and unknown
    assert known.mid == own.mid and "core" in known.basis
    assert unknown.high[-1] / unknown.low[-1] > known.high[-1] / known.low[-1]


def test_a_stage_without_a_law_has_no_forecast() -> None:
    assert forecast(SFT(model="smollm2-135m", data=Task(name="a", generator="gcd"))) is None


def test_a_forecast_and_a_plan_speak_of_the_same_tokens() -> None:
    one = recipe()
    plan, curve = estimate(one, Cluster(accelerator="h100-sxm")), forecast(one)
    assert curve is not None
    assert plan.flops.total == plan.flops.per_token * curve.final.tokens
    assert plan.steps == curve.final.step
