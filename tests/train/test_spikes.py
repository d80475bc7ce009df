"""The spike playbook without a model: what surprises, what ordinary curves never do, and what is decided."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data.mixing import WindowOrder
from lablib.models.layout import Place
from lablib.specs import LabError, ModelSpec, Parallelism, Pretrain, Stability
from lablib.train import loop, stability
from lablib.train.batches import Batches
from lablib.train.checkpoint import RUNGS, Position, kept
from lablib.train.distributed import World
from lablib.train.stability import Detector, Guard, Rewind, Spike, respond
from lablib.train.stability.detector import HISTORY, level_and_spread
from lablib.train.stability.playbook import RECURS, beyond
from lablib.train.step import Outcome

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


def test_the_ladder_with_the_checkpoints_that_are_kept() -> None:
    found = spike(1030, 1032)
    past: list[Rewind] = []
    steps: list[int] = []
    for _ in range(RUNGS):
        for step in range(past[-1].to_step + 10 if past else 10, found.first_step, 10):
            steps = sorted(kept([*steps, step], 2, SETTINGS.rewind, None))
        past.append(respond(SETTINGS, past, found, steps, 8))
        steps = [step for step in steps if step <= past[-1].to_step]
    assert [one.to_step for one in past] == [900, 800, 700, 600]


def test_a_torn_checkpoint_is_not_gone_back_to() -> None:
    found = [respond(SETTINGS, [], spike(), [200, 300, 400], 8, whole=whole) for whole in ((400).__gt__, (0).__gt__)]
    assert [one.to_step for one in found] == [300, 0]


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
    assert len(steps) <= keep + RUNGS + 2
    for rung in range(1, RUNGS + 1):
        if newest >= (rung + 1) * (back + every):
            assert any(rung * back <= newest - step <= (rung + 1) * (back + every) for step in steps)


def guard(path: Path, **changes: Any) -> tuple[Guard, list[str]]:
    """A guard that knows an ordinary curve, and the kinds of the events that it sends."""
    sent: list[str] = []
    run: Any = SimpleNamespace(path=path, event=lambda kind, **_: sent.append(kind), note=lambda **_: None)
    made = Guard(SETTINGS.replace(**changes), run, World(0, 1, torch.device("cpu")), 8)
    for loss in 2 + 0.01 * np.random.default_rng(0).normal(size=HISTORY):
        made.detector.accept(float(loss), 1.0)
    return made, sent


def seen(by: Guard, losses: list[float]) -> list[Spike | None]:
    """What a guard says to one step after the other."""
    found = []
    for step, loss in enumerate(losses, 100):
        by.doubts(loss, 1.0)
        found.append(by.observe(step, 8 * step, Outcome(loss, 1.0, math.isfinite(loss))))
    return found


def test_without_rewinds_a_finite_surprise_is_only_noted(tmp_path: Path) -> None:
    with_rewinds, _ = guard(tmp_path)
    assert seen(with_rewinds, [9.0] * 3)[-1] is not None and not with_rewinds.calm
    without, sent = guard(tmp_path, max_rewinds=0)
    assert seen(without, [9.0] * 5) == [None] * 5 and without.calm
    assert set(sent) == {"surprise"}
    assert seen(without, [math.nan])[0] is not None


def test_a_decision_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    watching, _ = guard(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with patch.object(stability.guard, "write_atomic", full), pytest.raises(LabError, match=r"No space left.*resume"):
        watching.respond(spike(), [400], torch.nn.Linear(2, 2))


class Loop:
    """A run of 20 steps whose parts do nothing; its guard is calm but after the steps `surprising`."""

    def __init__(self, surprising: set[int]) -> None:
        """Steps count from 1."""
        self.saved: list[int] = []
        self.surprising = surprising
        self.guard: Any = MagicMock(rate=1.0, calm=True, **{"memory.return_value": {}})
        self.guard.begin.side_effect = lambda sequence, per_step: sequence
        self.guard.observe.side_effect = self.observe

    def observe(self, step: int, *_: Any) -> None:
        self.guard.calm = step not in self.surprising

    def save(self, _model: Any, _optimizer: Any, at: Position, _layout: str) -> Path:
        self.saved.append(at.step)
        return Path()

    def train(self) -> list[int]:
        """The steps of the checkpoints."""
        stepper: Any = MagicMock(return_value=Outcome(2.0, 1.0, True), world=World(0, 1, torch.device("cpu")))
        checkpoints = MagicMock(torn=[], **{"load.return_value": None, "save.side_effect": self.save})
        batches = MagicMock(per_step=8, **{"tokens.return_value": {}})
        insight = MagicMock(**{"asked_to_stop.return_value": False, "report.return_value": {}})
        parts: Any = MagicMock(
            stepper=stepper, batches=batches, checkpoints=checkpoints, guard=self.guard, insight=insight
        )
        model = ModelSpec(layers=1, hidden=64, heads=2, kv_heads=2, ffn=64, vocab=100)
        tokens = 8 * 32
        recipe = Pretrain(model=model, seq_len=32, batch_tokens=tokens, tokens=20 * tokens, checkpoint_every=5)
        assert loop.train(recipe, MagicMock(stop_requested=False), parts)
        return self.saved


def test_a_checkpoint_that_falls_on_a_surprising_step_is_made_after_it() -> None:
    assert Loop(set()).train() == [5, 10, 15, 20]
    assert Loop({5, 10, 11, 19, 20}).train() == [6, 12, 15, 20]


@settings(max_examples=40, deadline=None)
@given(
    skips=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)).map(lambda x: (x[0], x[0] + x[1])), max_size=4),
    broken=st.sets(st.integers(0, 30)),
    per_step=st.integers(1, 16),
    shares=st.lists(st.floats(0.05, 1), min_size=1, max_size=4),
)
def test_what_is_counted_is_what_an_update_was_made_of(
    skips: list[tuple[int, int]], broken: set[int], per_step: int, shares: list[float]
) -> None:
    """Against a list of every window that was trained on; the steps in `broken` made no update."""
    order = WindowOrder(({f"d{number}": share / sum(shares) for number, share in enumerate(shares)},))
    data: Any = SimpleNamespace(read=order.taken)
    batches = Batches(data, Place.of(0, Parallelism()), per_step, 1, True, torch.device("cpu"))
    at, trained = Position(0, 0, "same"), list[str]()
    for attempt in range(31):
        first = beyond(skips, at.sequences, per_step)
        if attempt not in broken:
            trained += [order.place(index)[0] for index in range(first, first + per_step)]
        at = loop.moved(at, first, per_step, batches, attempt not in broken)
    gone = batches.tokens(0, at.sequences)
    assert {name: count - at.passed.get(name, 0) for name, count in gone.items()} == {
        name: trained.count(name) for name in gone
    }


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


@pytest.mark.parametrize("usual", [Stability(), Stability(patience=5)])
def test_a_run_out_of_rewinds_can_go_on_with_more(usual: Stability) -> None:
    model = ModelSpec(layers=1, hidden=64, heads=2, kv_heads=2, ffn=64, vocab=100)
    recipe = Pretrain(model=model, tokens="1M", stability=usual)
    more = recipe.replace(stability=usual.replace(max_rewinds=20, recheck=False))
    assert more.science_hash == recipe.science_hash
