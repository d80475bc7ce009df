"""The spike playbook without a model: what surprises, what ordinary curves never do, and what is decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.specs import LabError, ModelSpec, Pretrain, Stability
from lablib.train.checkpoint import kept
from lablib.train.stability import Detector, Rewind, Spike, respond
from lablib.train.stability.detector import level_and_spread
from lablib.train.stability.playbook import RECURS, beyond

SETTINGS = Stability()
STEPS = 1200


def ordinary(seed: int, heavy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Loss of a power law (Chinchilla's exponent 0.28 in tokens) from ln 50257 on, with noise between batches: normal, or Student's
    t with 3 degrees of freedom, whose tails send single batches ten deviations out; and a gradient norm that falls with it."""
    draw = np.random.default_rng(seed)
    steps = np.arange(1, STEPS + 1)
    noise = draw.standard_t(3, STEPS) if heavy else draw.normal(size=STEPS)
    loss = 1.7 + 9.1 * (steps + 1) ** -0.28 + 0.03 * noise
    return loss, np.exp(-0.1 * np.log(steps) + draw.normal(0, 0.3, STEPS))


def spikes(losses: np.ndarray, norms: np.ndarray, used: Stability = SETTINGS) -> list[int]:
    """Steps (from 0) at which so many in a row have surprised as make a spike."""
    detector, streak, found = Detector(used), 0, []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        streak = streak + 1 if detector.surprise(loss, norm) else 0
        if not streak:
            detector.accept(loss, norm)
        if streak == used.patience:
            found.append(step)
    return found


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ordinary_curves_have_no_spike(seed: int, heavy: bool) -> None:
    assert spikes(*ordinary(seed, heavy)) == []


def test_without_patience_heavy_tails_are_spikes() -> None:
    found = [spikes(*ordinary(seed, heavy=True), SETTINGS.replace(patience=1)) for seed in range(3)]
    assert sum(map(len, found)) > 0


@pytest.mark.parametrize("shape", ["jump", "climb", "gradient", "nan"])
def test_injected_spikes_are_found(shape: str) -> None:
    losses, norms = ordinary(0, heavy=False)
    at = 1000
    if shape == "jump":
        losses[at:] += 0.5
    elif shape == "climb":
        losses[at:] += 0.01 * np.arange(STEPS - at)
    elif shape == "gradient":
        norms[at:] *= 40
    else:
        losses[at:] = math.nan
    found = spikes(losses, norms)
    assert found and at < found[0] <= at + (150 if shape == "climb" else SETTINGS.patience + 1)


def test_one_odd_batch_is_no_spike() -> None:
    losses, norms = ordinary(0, heavy=False)
    losses[500], norms[700] = 12.0, 400.0
    assert spikes(losses, norms) == []


def test_spread_is_the_noise_whatever_the_trend_and_the_outliers() -> None:
    draw = np.random.default_rng(0)
    curve = 5 - 0.01 * np.arange(4000) + draw.normal(0, 0.2, 4000)
    curve[::50] += 9
    assert level_and_spread(curve)[1] == pytest.approx(0.2, rel=0.1)


def spike(first: int = 500, last: int = 502, per_step: int = 8) -> Spike:
    return Spike("loss", first, last, (first - 1) * per_step, last * per_step)


def test_the_ladder() -> None:
    past: list[Rewind] = []
    for _ in range(4):
        past.append(respond(SETTINGS, past, spike(), range(0, 500, 50), per_step=8, layer=3))
    assert [one.to_step for one in past] == [400, 300, 200, 100]
    assert [one.rate for one in past] == pytest.approx([1, 0.8, 0.64, 0.512])
    assert [one.fp32_layer for one in past] == [None, None, 3, 3]
    assert past[0].skip == (499 * 8 - 80, 502 * 8 + 80)
    lengths = [end - first for first, end in (one.skip for one in past)]
    assert lengths == sorted(lengths)


def test_another_spike_much_later_is_a_new_trouble() -> None:
    first = respond(SETTINGS, [], spike(), [400], 8)
    later = 502 + RECURS * SETTINGS.rewind + 1
    again = respond(SETTINGS, [first], spike(later, later + 2), [later - 101], 8)
    assert (again.recurrence, again.rate) == (1, 1.0)


def test_the_budget_ends_in_a_clear_failure() -> None:
    past = [respond(SETTINGS, [], spike(), [400], 8)]
    with pytest.raises(LabError, match=r"step 502: loss.*after 1 rewinds.*lower optimizer\.learning_rate"):
        respond(SETTINGS.replace(max_rewinds=1), past, spike(), [400], 8)


@settings(max_examples=40, deadline=None)
@given(
    first=st.integers(1, 2000),
    more=st.integers(0, 5),
    steps=st.lists(st.integers(1, 2000), unique=True),
    per_step=st.integers(1, 64),
)
def test_a_decision_goes_before_the_spike_and_covers_its_data(
    first: int, more: int, steps: list[int], per_step: int
) -> None:
    found = spike(first, first + more, per_step)
    made: Rewind = respond(SETTINGS, [], found, steps, per_step)
    assert made.to_step < first and made.to_step in {0, *steps}
    assert made.skip[0] <= found.first_sequence and found.end_sequence <= made.skip[1]


@settings(max_examples=40, deadline=None)
@given(
    skips=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)).map(lambda x: (x[0], x[0] + x[1])), max_size=6),
    start=st.integers(0, 220),
    per_step=st.integers(1, 16),
)
def test_a_step_never_reads_what_is_skipped(skips: list[tuple[int, int]], start: int, per_step: int) -> None:
    first = beyond(skips, start, per_step)
    forbidden = {index for low, high in skips for index in range(low, high)}
    fits = (at for at in range(start, 1000) if not forbidden & set(range(at, at + per_step)))
    assert first == next(fits)


@settings(max_examples=40, deadline=None)
@given(every=st.integers(1, 40), back=st.integers(1, 60), keep=st.integers(1, 3), count=st.integers(1, 80))
def test_a_checkpoint_to_go_back_to_is_always_kept(every: int, back: int, keep: int, count: int) -> None:
    steps: list[int] = []
    for step in range(every, every * count + 1, every):
        steps.append(step)
        steps = sorted(kept(steps, keep, back, None))
    newest = every * count
    assert steps[-keep:] == list(range(every, newest + 1, every))[-keep:]
    assert len(steps) <= keep + 3
    if newest >= 2 * back + 2 * every:
        assert any(back <= newest - step <= 2 * back + 2 * every for step in steps)


def test_permanent_checkpoints_stay() -> None:
    steps: list[int] = []
    for step in range(30, 1001, 30):
        steps = sorted(kept([*steps, step], 1, 0, 250))
    assert steps == [270, 510, 750, 990]


def test_the_usual_stability_is_not_part_of_the_experiment() -> None:
    model = ModelSpec(layers=1, hidden=64, heads=2, kv_heads=2, ffn=64, vocab=100)
    recipe = Pretrain(model=model, tokens="1M")
    assert "stability" not in recipe.science()
    assert recipe.replace(permanent_every=5).science_hash == recipe.science_hash
    assert recipe.replace(stability=Stability(patience=5)).science_hash != recipe.science_hash
