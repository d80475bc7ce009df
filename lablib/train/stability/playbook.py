"""The spike playbook (guide §10.3) as a pure function: what happened before and a spike in, what to do about it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lablib.specs import LabError, Stability

RECURS = 10
"""A spike within so many times `Stability.rewind` steps of the last one is the same trouble again."""


@dataclass(frozen=True)
class Spike:
    """Steps in a row that surprised. Steps count from 1; a sequence is a global index into the training data."""

    why: str
    """What surprised in the last of them: "loss", "gradient norm" or "not finite"."""
    first_step: int
    last_step: int
    first_sequence: int
    end_sequence: int
    """One past the last that was read."""


@dataclass(frozen=True)
class Rewind:
    """One decision. A run's decisions in order say all that its checkpoints cannot know."""

    at_step: int
    """Where the spike was confirmed."""
    first_step: int
    """Where it began."""
    to_step: int
    """The checkpoint to go back to; later ones that were made before this decision count no more."""
    skip: tuple[int, int]
    """Training sequences [first, end) that are never read again."""
    rate: float
    """Factor for the learning rate from here on."""
    recurrence: int
    """1 for a new trouble, 2 for the same again, ..."""
    fp32_layer: int | None
    """Layer whose attention is computed in fp32 from here on."""


def respond(
    settings: Stability,
    past: Sequence[Rewind],
    spike: Spike,
    steps: Sequence[int],
    per_step: int,
    layer: int | None = None,
    whole: Callable[[int], bool] = bool,
) -> Rewind:
    """What to do about `spike` after the decisions `past`, with checkpoints at `steps` (the start, step 0, always counts), of
    which the nearest that is `whole` is taken.

    First rewind and skip the data; where it recurs also lower the rate, and from the third time compute the attention of
    `layer` in fp32. Each time go back further and skip more. `per_step` is the sequences of a step. Raises `LabError` where
    the budget of rewinds is spent.
    """
    if len(past) >= settings.max_rewinds:
        raise LabError(_give_up(past, spike))
    before = past[-1] if past else None
    recurs = before is not None and spike.first_step <= before.at_step + RECURS * settings.rewind
    count = before.recurrence + 1 if before and recurs else 1
    margin = settings.skip * 2 ** (count - 1) * per_step
    aim = spike.first_step - 1 - count * settings.rewind
    clean = sorted({0, *(step for step in steps if step < spike.first_step)})
    nearest = sorted(clean, key=lambda step: abs(step - aim))
    return Rewind(
        at_step=spike.last_step,
        first_step=spike.first_step,
        to_step=next(step for step in nearest if step == 0 or whole(step)),
        skip=(max(0, spike.first_sequence - margin), spike.end_sequence + margin),
        rate=(before.rate if before else 1.0) * (settings.reduce if count > 1 else 1.0),
        recurrence=count,
        fp32_layer=layer if count > 2 else None,
    )


def beyond(skips: Sequence[tuple[int, int]], sequence: int, per_step: int) -> int:
    """The first sequence from `sequence` on where a step of `per_step` reads nothing that is skipped."""
    moved = True
    while moved:
        moved = False
        for first, end in skips:
            if sequence < end and first < sequence + per_step:
                sequence, moved = end, True
    return sequence


def _give_up(past: Sequence[Rewind], spike: Spike) -> str:
    where = f"step {spike.last_step}: {spike.why} out of the ordinary since step {spike.first_step}"
    if not past:
        return f"{where}, and stability.max_rewinds=0 allows no rewind. Raise it in the run's recipe.json and resume the run, which then passes over that data, or submit it as a new run with a lower optimizer.learning_rate"
    rate = past[-1].rate
    return f"{where}, after {len(past)} rewinds (the last to step {past[-1].to_step}, at {rate:.0%} of the learning rate): the run does not recover by itself. Submit it as a new run with a lower optimizer.learning_rate or another initialisation, look at the data of the skipped sequences in its events, or raise stability.max_rewinds in its recipe.json and resume it"
