"""The training loop, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lablib.runs import Recorder
from lablib.specs import Pretrain
from lablib.train.batches import Batches
from lablib.train.checkpoint import Checkpoints, Position
from lablib.train.heldout import Heldout
from lablib.train.meter import Meter
from lablib.train.optimizer import set_learning_rate
from lablib.train.schedule import learning_rate
from lablib.train.stability import Guard, Spike
from lablib.train.step import Outcome, Stepper


@dataclass(frozen=True)
class Parts:
    """What the loop drives."""

    stepper: Stepper
    batches: Batches
    heldout: Heldout
    checkpoints: Checkpoints
    meter: Meter
    guard: Guard
    restart: Callable[[], None]
    """Put model and optimiser back to where they were before the first step."""


def train(recipe: Pretrain, run: Recorder, parts: Parts) -> bool:
    """Train from the newest checkpoint (or the start) to the last step; True where it got there.

    False means that the run was asked to stop: its state is saved and the same call continues it. A spike is met by going
    back to an earlier checkpoint (`lablib.train.stability`). Raises `LabError` where that does not help.
    """
    guard, owed = parts.guard, False
    at, cut = resume(recipe, run, parts), recipe.cut
    while at.step < cut.count:
        if parts.stepper.world.any(run.stop_requested):
            save(recipe, run, parts, at)
            settle(run, parts)
            return False
        size = cut.size(at.step) // recipe.seq_len
        rate = guard.rate * learning_rate(at.step, cut.count, recipe.optimizer.learning_rate, recipe.schedule)
        set_learning_rate(parts.stepper.optimizer, rate)
        first = guard.begin(at.sequences, size)
        parts.meter.start()
        batches = parts.batches.at(first, size)
        parts.meter.loaded()
        outcome = parts.stepper(batches, guard.doubts)
        parts.meter.stop(size / parts.batches.per_step)
        spike = guard.observe(at.step + 1, first, outcome)
        if spike is not None:
            at, owed = go_back(recipe, run, parts, spike), False
            continue
        at = moved(at, first, size, outcome.finite)
        if not outcome.finite:
            continue
        last = at.step == cut.count
        if at.step % recipe.log_every == 0 or last:
            log(recipe, run, parts, at, outcome, rate)
        run.progress(at.step, cut.count)
        if due(at.step, recipe.eval_every, cut.count, times=5):
            run.log(at.step, stream="eval", **parts.heldout(parts.stepper))
        owed = owed or due(at.step, recipe.checkpoint_every, cut.count, times=10)
        if owed and (guard.calm or last):
            save(recipe, run, parts, at)
            owed = False
        tell(run, parts)
    settle(run, parts)
    return True


def moved(at: Position, first: int, per_step: int, updated: bool) -> Position:
    """Where a run stands after a step from `at` that read `per_step` sequences from `first` on, `updated` or not."""
    passed = at.passed + first - at.sequences + (0 if updated else per_step)
    return replace(at, step=at.step + updated, sequences=first + per_step, passed=passed)


def due(step: int, every: int | None, steps: int, times: int) -> bool:
    """Whether something done `every` steps (None: about `times` a run) and after the last one is due after `step`."""
    return step == steps or step % (every or -(-steps // times)) == 0


def resume(recipe: Pretrain, run: Recorder, parts: Parts, begun: bool = False) -> Position:
    """The position of the newest whole checkpoint that counts, after loading it, else the start; `begun` says that the weights
    are no longer what they were there."""
    stepper, guard = parts.stepper, parts.guard
    found = parts.checkpoints.load(stepper.model, stepper.optimizer, recipe.science_hash, guard.valid)
    for name in parts.checkpoints.torn:
        run.event("checkpoint_torn", checkpoint=name)
    at = found or Position(0, 0, recipe.science_hash)
    if found is not None:
        run.event("resumed", at_step=found.step, sequences=found.sequences, layout=str(recipe.parallelism))
    elif begun:
        parts.restart()
    guard.recall(at)
    guard.treat(stepper.model)
    return at


def go_back(recipe: Pretrain, run: Recorder, parts: Parts, spike: Spike) -> Position:
    """Rewind as the guard decides, and take up the run from there. Raises `LabError` where it gives up."""
    guard, checkpoints = parts.guard, parts.checkpoints
    guard.respond(spike, checkpoints.steps(guard.valid), parts.stepper.model, checkpoints.whole)
    return resume(recipe, run, parts, begun=True)


def save(recipe: Pretrain, run: Recorder, parts: Parts, at: Position) -> None:
    """Publish a checkpoint of where the run stands, at once or beside the training."""
    stepper, whole = parts.stepper, replace(at, memory=parts.guard.memory())
    parts.checkpoints.save(stepper.model, stepper.optimizer, whole, str(recipe.parallelism))


def tell(run: Recorder, parts: Parts) -> None:
    """Say which checkpoints have been published since the last time."""
    for step, path in parts.checkpoints.news():
        run.saved(step, path)


def settle(run: Recorder, parts: Parts) -> None:
    """Wait for the checkpoint that is being written, and say so."""
    parts.checkpoints.wait()
    tell(run, parts)


def log(recipe: Pretrain, run: Recorder, parts: Parts, at: Position, outcome: Outcome, rate: float) -> None:
    """One row of the train stream; `step` counts the updates made, `tokens` what they have read.

    ``tokens.<domain>`` is how far the data has been gone through, with what was passed over: after a skip they sum to more.
    """
    measured = {"loss": outcome.loss, "grad_norm": outcome.grad_norm, "lr": rate, **parts.batches.read(at.sequences)}
    tokens = (at.sequences - at.passed) * recipe.seq_len
    run.log(at.step, "train", tokens=tokens, **measured, **parts.meter.report(tokens))
