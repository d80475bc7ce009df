"""The training loop, top to bottom."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from lablib.runs import Recorder
from lablib.specs import Midtrain, Pretrain
from lablib.train.batches import Batch, Batches
from lablib.train.checkpoint import Checkpoints, Position
from lablib.train.heldout import Heldout
from lablib.train.insight import Insight, collect_all, collected_by_hand
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
    insight: Insight
    restart: Callable[[], None]
    """Put model and optimiser to where they are before the first step. Every rank calls it; raises `LabError`."""


def train(recipe: Pretrain, run: Recorder, parts: Parts) -> bool:
    """Train from the newest checkpoint (or the start) to the last step; True where it got there.

    False means that the run was asked to stop: its state is saved and the same call continues it. A spike is met by going
    back to an earlier checkpoint (`lablib.train.stability`). Raises `LabError` where that does not help.
    """
    with collected_by_hand():
        finished = _train(recipe, run, parts)
        if finished:  # one that is asked to stop may have seconds left
            parts.insight.end()
        return finished


def _train(recipe: Pretrain, run: Recorder, parts: Parts) -> bool:
    guard, owed = parts.guard, False
    at, cut = resume(recipe, run, parts), recipe.cut
    if at.step == 0 and isinstance(recipe, Midtrain):
        evaluate(run, parts, at)
    while at.step < cut.count:
        if parts.insight.asked_to_stop(at.step + 1):
            save(recipe, run, parts, at)
            settle(run, parts)
            return False
        size = cut.size(at.step) // recipe.seq_len
        rate = guard.rate * learning_rate(at.step, cut.count, recipe.optimizer.learning_rate, recipe.schedule)
        set_learning_rate(parts.stepper.optimizer, rate)
        first = guard.begin(at.sequences, size)
        with parts.insight.of_step(at.step + 1):
            parts.meter.start()
            batches = parts.batches.at(first, size)
            parts.meter.loaded()
            outcome = parts.stepper(batches, guard.doubts)
            parts.meter.stop(size / parts.batches.per_step)
        spike = guard.observe(at.step + 1, first, outcome)
        if spike is not None:
            at, owed = go_back(recipe, run, parts, spike), False
            continue
        at = moved(at, first, size, parts.batches, outcome.finite)
        if not outcome.finite:
            continue
        last = at.step == cut.count
        if at.step % recipe.log_every == 0 or last:
            log(recipe, run, parts, at, outcome, rate, batches)
        run.progress(at.step, cut.count)
        if due(at.step, recipe.eval_every, cut.count, times=5):
            evaluate(run, parts, at)
        owed = owed or due(at.step, recipe.checkpoint_every, cut.count, times=10)
        if owed and (guard.calm or last):
            save(recipe, run, parts, at)
            owed = False
        tell(run, parts)
    settle(run, parts)
    return True


def moved(at: Position, first: int, size: int, batches: Batches, updated: bool) -> Position:
    """Where a run stands after a step from `at` that read `size` sequences from `first` on, `updated` or not."""
    end = first + size
    passed = Counter(at.passed) + Counter(batches.tokens(at.sequences, first if updated else end))
    return replace(at, step=at.step + updated, sequences=end, passed=dict(passed))


def due(step: int, every: int | None, steps: int, times: int) -> bool:
    """Whether something done `every` steps (None: about `times` a run) and after the last one is due after `step`."""
    return step == steps or step % (every or -(-steps // times)) == 0


def resume(recipe: Pretrain, run: Recorder, parts: Parts) -> Position:
    """The position of the newest whole checkpoint that counts, after loading it, else the start, with what it has put back."""
    stepper, guard = parts.stepper, parts.guard
    found = parts.checkpoints.load(stepper.model, stepper.optimizer, recipe.science_hash, guard.valid)
    for name in parts.checkpoints.torn:
        run.event("checkpoint_torn", checkpoint=name)
    at = found or Position(0, 0, recipe.science_hash)
    if found is not None:
        run.event("resumed", at_step=found.step, sequences=found.sequences, layout=str(recipe.parallelism))
    else:
        parts.restart()
    guard.recall(at)
    if stepper.routing is not None:
        stepper.routing.recall(at.step, at.memory)
    guard.treat(stepper.model)
    return at


def go_back(recipe: Pretrain, run: Recorder, parts: Parts, spike: Spike) -> Position:
    """Rewind as the guard decides, and take up the run from there. Raises `LabError` where it gives up."""
    guard, checkpoints = parts.guard, parts.checkpoints
    settle(run, parts)  # the same step may be saved again on the new path
    guard.respond(spike, checkpoints.steps(guard.valid), parts.stepper.model, checkpoints.whole)
    return resume(recipe, run, parts)


def evaluate(run: Recorder, parts: Parts, at: Position) -> None:
    """One row of the eval stream, and how long it took."""
    begun = time.perf_counter()
    run.log(at.step, stream="eval", **parts.heldout(parts.stepper))
    run.event("evaluated", at_step=at.step, took=time.perf_counter() - begun)


def save(recipe: Pretrain, run: Recorder, parts: Parts, at: Position) -> None:
    """Publish a checkpoint of where the run stands, at once or beside the training."""
    stepper = parts.stepper
    routers = stepper.routing.memory() if stepper.routing is not None else {}
    whole = replace(at, memory={**parts.guard.memory(), **routers})
    parts.checkpoints.save(stepper.model, stepper.optimizer, whole, str(recipe.parallelism))
    collect_all()


def tell(run: Recorder, parts: Parts) -> None:
    """Say which checkpoints have been published since the last time."""
    for step, path, took in parts.checkpoints.news():
        run.saved(step, path, took=took)


def settle(run: Recorder, parts: Parts) -> None:
    """Wait for the checkpoint that is being written, and say so."""
    parts.checkpoints.wait()
    tell(run, parts)


def log(
    recipe: Pretrain, run: Recorder, parts: Parts, at: Position, outcome: Outcome, rate: float, batches: list[Batch]
) -> None:
    """One row of the train stream; `step` counts the updates made, `tokens` what they have read, ``tokens.<domain>`` what of
    it is of each domain: data that was passed over counts in neither.
    """
    measured = {"loss": outcome.loss, "grad_norm": outcome.grad_norm, "lr": rate}
    gone = parts.batches.tokens(0, at.sequences)
    domains = {f"tokens.{name}": tokens - at.passed.get(name, 0) for name, tokens in gone.items()}
    tokens = at.sequences * recipe.seq_len - sum(at.passed.values())
    told = parts.insight.report(at.step, parts.meter, batches, outcome)
    run.log(at.step, "train", tokens=tokens, **measured, **domains, **parts.meter.report(tokens), **told)
