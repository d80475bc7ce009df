"""Runs that are hurt on purpose and heal: poisoned data, flipped bits, NaN; and what they would be without healing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from launch import on_ranks
from tiny import BATCH, MODEL, SEQ_LEN, curve, new_run, recipe

from lablib.models import context
from lablib.models.attention import attend
from lablib.models.build import build_model
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Parallelism, Pretrain, Ref, Schedule, Stability
from lablib.train import loop, step
from lablib.train.batches import Batch, Batches
from lablib.train.pretrain import pretrain
from lablib.train.stability import Guard
from lablib.train.stability.measures import attend_in_fp32, attention_scales, unusual_weights

STEPS = 32
HEALS = Stability(window=16, patience=2, rewind=6, skip=2, max_rewinds=4)
DOES_NOT = HEALS.replace(patience=STEPS)
POISON = range(20 * BATCH, 24 * BATCH)
"""Training sequences, four steps of them, whose labels are one wrong token."""
BROKEN = 18 * BATCH
"""Sequence at which a step's batch makes the loss NaN."""
CLEAN = Batches.at
LOSS = step.Stepper.loss_sum


def wanted(data: Ref, stability: Stability = HEALS, layout: Parallelism | None = None) -> Pretrain:
    made = recipe(
        data,
        tokens=STEPS * BATCH * SEQ_LEN,
        schedule=Schedule(warmup=0.1, decay=0.1),
        checkpoint_every=8,
        eval_every=STEPS,
        stability=stability,
    )
    return made if layout is None else made.replace(parallelism=layout)


def poisoned(self: Batches, position: int, count: int) -> list[Batch]:
    batches = CLEAN(self, position, count)
    return [replace(b, labels=torch.full_like(b.labels, 7)) for b in batches] if position in POISON else batches


def marked(self: Batches, position: int, count: int) -> list[Batch]:
    batches = CLEAN(self, position, count)
    return [replace(b, inputs=b.inputs * 0 - 1) for b in batches] if position == BROKEN else batches


def nan_where_marked(self: step.Stepper, batch: Batch) -> torch.Tensor:
    factor = float("nan") if bool((batch.inputs < 0).all()) else 1.0
    return LOSS(self, replace(batch, inputs=batch.inputs.clamp(min=0))) * factor


def flipping(at: int) -> Callable[..., Any]:
    """`Stepper.__call__` after as many updates as `at` turns bits of a weight's exponent first, once in a run."""
    flipped: list[bool] = []

    def stepping(self: step.Stepper, *args: Any) -> Any:
        if self.optimizer.state and not flipped and _updates(self) == at:
            flipped.append(True)
            weight = next(w for name, w in self.model.named_parameters() if "down_proj" in name)
            with torch.no_grad():
                weight[0, 0] *= 2.0**20
        return STEP(self, *args)

    return stepping


def _updates(stepper: step.Stepper) -> int:
    return int(next(iter(stepper.optimizer.state.values()))["step"])


STEP, RESUME = step.Stepper.__call__, loop.resume
HARMS: dict[str, Callable[[], list[tuple[Any, str, Any]]]] = {
    "": list,
    "poison": lambda: [(Batches, "at", poisoned)],
    "bit": lambda: [(step.Stepper, "__call__", flipping(20))],
    "nan": lambda: [(Batches, "at", marked), (step.Stepper, "loss_sum", nan_where_marked)],
    "poison, killed before loading": lambda: [*HARMS["poison"](), (loop, "resume", die_after_going_back)],
    "poison, killed after loading": lambda: [*HARMS["poison"](), (Guard, "recall", die_after_a_rewind)],
}


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_going_back(recipe: Pretrain, run: Recorder, parts: loop.Parts) -> Any:
    if parts.guard.rewinds:
        die()
    return RESUME(recipe, run, parts)


def die_after_a_rewind(self: Guard, _: Any) -> None:
    if self.rewinds:
        die()


def carry_out(path: Path, made: Pretrain, harm: str = "") -> None:
    """One attempt at a run that is hurt by `harm`."""
    run = Recorder(path, int(os.environ.get("RANK", "0")))
    with ExitStack() as planted:
        for target, name, value in HARMS[harm]():
            planted.enter_context(patch.object(target, name, value))
        with run.working():
            pretrain(made, run)


def hurt(root: Path, made: Pretrain, harm: str = "") -> Path:
    path = new_run(root, made)
    carry_out(path, made, harm)
    return path


def loss(path: Path) -> float:
    return float(Run.open(path).rows("eval")[-1]["loss"])


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Run.open(path).events() if event["kind"] == kind]


def model(path: Path) -> bytes:
    return (path / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def clean(root: Path, data: Ref) -> Path:
    return hurt(root, wanted(data))


@pytest.fixture(scope="module")
def healed(root: Path, data: Ref) -> Path:
    return hurt(root, wanted(data), "poison")


def test_a_run_that_is_well_is_left_alone(clean: Path) -> None:
    kinds = {event["kind"] for event in Run.open(clean).events()}
    assert not kinds & {"surprise", "not_finite", "rewound", "hardware"}
    assert Run.open(clean).rows()[-1]["tokens"] == STEPS * BATCH * SEQ_LEN


def test_poisoned_data_is_skipped(root: Path, data: Ref, clean: Path, healed: Path) -> None:
    rewinds = events(healed, "rewound")
    assert rewinds and all(one["to_step"] < one["first_step"] for one in rewinds)
    assert rewinds[-1]["skip"][0] <= POISON.start and POISON.stop <= rewinds[-1]["skip"][1]
    assert loss(healed) < loss(clean) + 0.1
    assert Run.open(healed).manifest["notes"]["deviations"][0]["skip"] == rewinds[0]["skip"]
    for row in Run.open(healed).rows():
        assert row["tokens"] == row["tokens.odd"] + row["tokens.even"] == row["step"] * BATCH * SEQ_LEN
    sick = hurt(root, wanted(data, DOES_NOT), "poison")
    assert not events(sick, "rewound") and loss(sick) > loss(clean) + 0.2


def test_going_back_to_the_start_is_starting_again(root: Path, data: Ref, clean: Path) -> None:
    made = wanted(data, HEALS.replace(rewind=100))
    found = hurt(root, made, "poison")
    first = events(found, "rewound")[0]
    assert first["to_step"] == 0 and not events(found, "resumed")
    assert curve(found)[:16] == curve(clean)[:16]
    assert loss(found) < loss(clean) + 0.2


def test_a_flipped_bit_is_gone_after_the_rewind(root: Path, data: Ref, clean: Path) -> None:
    found = hurt(root, wanted(data), "bit")
    (rewind,) = events(found, "rewound")
    assert any("down_proj" in name for name in rewind["suspects"])
    assert loss(found) < loss(clean) + 0.1


def test_a_batch_without_a_finite_loss_is_passed_over(root: Path, data: Ref, clean: Path) -> None:
    found = hurt(root, wanted(data), "nan")
    (event,) = events(found, "not_finite")
    assert event["first_sequence"] == BROKEN and not events(found, "rewound")
    assert loss(found) < loss(clean) + 0.1
    last = Run.open(found).rows()[-1]
    assert last["tokens"] == last["tokens.odd"] + last["tokens.even"] == STEPS * BATCH * SEQ_LEN


def test_without_rewinds_what_is_not_finite_is_refused(root: Path, data: Ref) -> None:
    made = wanted(data, HEALS.replace(max_rewinds=0))
    with pytest.raises(LabError, match=r"step 19: not finite.*learning_rate"):
        hurt(root, made, "nan")


@pytest.mark.parametrize("when", [pytest.param("before loading", marks=pytest.mark.slow), "after loading"])
def test_a_kill_in_the_middle_of_a_rewind_changes_nothing(root: Path, data: Ref, healed: Path, when: str) -> None:
    path = new_run(root, wanted(data))
    assert on_ranks(1, carry_out, path, wanted(data), f"poison, killed {when}") == "killed"
    carry_out(path, wanted(data), "poison")
    assert curve(path) == curve(healed)
    assert model(path) == model(healed)


def test_two_ranks_decide_as_one(root: Path, data: Ref, healed: Path) -> None:
    made = wanted(data, layout=Parallelism(dp_shard=2, micro_batch_size=4))
    path = new_run(root, made)
    on_ranks(2, carry_out, path, made, "poison")
    fields = "at_step", "to_step", "skip", "rate"
    decided = [[[event[name] for name in fields] for event in events(run, "rewound")] for run in (path, healed)]
    assert decided[0] == decided[1]
    assert loss(path) == pytest.approx(loss(healed), rel=1e-4)


def test_a_step_that_comes_out_different_is_the_hardwares_fault(root: Path, data: Ref, clean: Path) -> None:
    made = wanted(data)
    path, broken = new_run(root, made), []

    def once(self: step.Stepper, batch: Batch) -> torch.Tensor:
        if not broken and self.optimizer.state and _updates(self) == 20:
            broken.append(True)
            return LOSS(self, batch) * 3
        return LOSS(self, batch)

    with patch.object(step.Stepper, "loss_sum", once):
        carry_out(path, made)
    (event,) = events(path, "hardware")
    assert event["at_step"] == 21 and len(event["nodes"]) == 1
    assert model(path) == model(clean)


@pytest.mark.parametrize("used", ["sdpa", "documents"])
def test_attention_in_fp32_changes_one_layer_and_only_low_precision(used: str) -> None:
    tokens = torch.arange(24).reshape(1, 24)
    network = build_model(MODEL, 0).eval()
    attend(network, "auto", inside=used == "documents")
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
        exact = network(tokens).logits
        with torch.autocast("cpu", torch.bfloat16):
            low = network(tokens).logits
        assert attend_in_fp32(network, 1) and not attend_in_fp32(network, 1)
        assert torch.equal(network(tokens).logits, exact)
        with torch.autocast("cpu", torch.bfloat16):
            treated = network(tokens).logits
    assert not torch.equal(treated, low)
    assert network.config._attn_implementation == used


def test_attention_over_slices_of_the_sequence_is_done_in_fp32_too() -> None:
    with patch.object(context, "_gathered", lambda tensor, _: tensor):
        network, group = build_model(MODEL, 0), SimpleNamespace(size=lambda: 1)
        context.attend_over(network, group)  # type: ignore[arg-type]
        assert set(attention_scales(network)) == {0, 1}
        assert attend_in_fp32(network, 1) and set(attention_scales(network)) == {0, 1}
        mask = context.context_mask(torch.arange(8)[None], 0, 1)
        assert torch.isfinite(network(torch.arange(8)[None], attention_mask=mask).logits).all()
    network = build_model(MODEL, 0)
    network.set_attn_implementation("eager")
    assert attention_scales(network) == {} and not attend_in_fp32(network, 0)


def test_a_layer_of_another_scale_is_named() -> None:
    network = build_model(MODEL, 0)
    assert unusual_weights(network) == {}
    wrong = network.model.layers[1].self_attn.k_proj.weight
    with torch.no_grad():
        wrong.mul_(20)
    assert "model.layers.1.self_attn.k_proj.weight" in unusual_weights(network)
    scales = attention_scales(network)
    assert scales[1] == pytest.approx(20 * scales[0], rel=0.1)
