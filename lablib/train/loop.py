"""The training loop, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass

from lablib.runs import Recorder
from lablib.specs import LabError, Pretrain
from lablib.train.batches import Batches
from lablib.train.checkpoint import Checkpoints, Position
from lablib.train.heldout import Heldout
from lablib.train.meter import Meter
from lablib.train.optimizer import set_learning_rate
from lablib.train.schedule import learning_rate
from lablib.train.step import Outcome, Stepper


@dataclass(frozen=True)
class Parts:
    """What the loop drives."""

    stepper: Stepper
    batches: Batches
    heldout: Heldout
    checkpoints: Checkpoints
    meter: Meter


def train(recipe: Pretrain, run: Recorder, parts: Parts) -> bool:
    """Train from the newest checkpoint (or the start) to the last step; True where it got there.

    False means that the run was asked to stop: its state is saved and the same call continues it. Raises `LabError` where
    loss or gradient stops being finite; the update is not made and the last checkpoint stays.
    """
    at = resume(recipe, run, parts)
    while at.step < recipe.steps:
        if parts.stepper.world.any(run.stop_requested):
            save(recipe, run, parts, at)
            return False
        rate = learning_rate(at.step, recipe.steps, recipe.optimizer.learning_rate, recipe.schedule)
        set_learning_rate(parts.stepper.optimizer, rate)
        parts.meter.start()
        outcome = parts.stepper(parts.batches.at(at.sequences))
        parts.meter.stop()
        at = Position(at.step + 1, at.sequences + parts.batches.per_step, at.science)
        refuse_not_finite(run, at, outcome)
        last = at.step == recipe.steps
        if at.step % recipe.log_every == 0 or last:
            log(recipe, run, parts, at, outcome, rate)
        run.progress(at.step, recipe.steps)
        if due(at.step, recipe.eval_every, recipe.steps, times=5):
            run.log(at.step, stream="eval", **parts.heldout(parts.stepper))
        if due(at.step, recipe.checkpoint_every, recipe.steps, times=10):
            save(recipe, run, parts, at)
    return True


def due(step: int, every: int | None, steps: int, times: int) -> bool:
    """Whether something done `every` steps (None: about `times` a run) and after the last one is due after `step`."""
    return step == steps or step % (every or -(-steps // times)) == 0


def resume(recipe: Pretrain, run: Recorder, parts: Parts) -> Position:
    """The position of the newest whole checkpoint after loading it, else the start."""
    stepper = parts.stepper
    found = parts.checkpoints.load(stepper.model, stepper.optimizer, recipe.science_hash)
    if found is None:
        return Position(0, 0, recipe.science_hash)
    run.event("resumed", at_step=found.step, sequences=found.sequences, layout=str(recipe.parallelism))
    return found


def save(recipe: Pretrain, run: Recorder, parts: Parts, at: Position) -> None:
    """Publish a checkpoint of where the run stands."""
    path = parts.checkpoints.save(parts.stepper.model, parts.stepper.optimizer, at, str(recipe.parallelism))
    run.saved(at.step, path)


def log(recipe: Pretrain, run: Recorder, parts: Parts, at: Position, outcome: Outcome, rate: float) -> None:
    """One row of the train stream; `step` counts the updates made, `tokens` what they have read, in all and by domain."""
    measured = {"loss": outcome.loss, "grad_norm": outcome.grad_norm, "lr": rate, **parts.batches.read(at.sequences)}
    run.log(at.step, "train", tokens=at.sequences * recipe.seq_len, **measured, **parts.meter.report())


def refuse_not_finite(run: Recorder, at: Position, outcome: Outcome) -> None:
    """Raises `LabError` (and leaves an event) where the step gave a loss or gradient that is not finite."""
    if outcome.finite:
        return
    run.event("not_finite", at_step=at.step, loss=str(outcome.loss), grad_norm=str(outcome.grad_norm))
    raise LabError(f"step {at.step}: loss {outcome.loss}, gradient norm {outcome.grad_norm}; training stopped before the update. Submit it again to continue from the last checkpoint, or lower optimizer.learning_rate")  # fmt: skip
