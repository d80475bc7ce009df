"""Learning rate over steps, as pure functions of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from lablib.specs import Schedule


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of the 0-based `step` out of `steps`.

    Warm-up is linear over W = round(warmup·steps) steps and reaches the peak in its last one, so that no step is spent at
    zero. Then, with D the steps that decay and t = (steps - step) / D counting down from 1 towards 0:
    WSD is 1 until D = round(decay·steps) steps remain, then floor + (1 - floor)·t (arXiv 2404.06395);
    cosine decays over all steps after the warm-up, floor + (1 - floor)·(1 + cos(π·(1 - t))) / 2 (arXiv 1608.03983).
    The floor is reached where the run ends, not one step before it.
    """
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    decay = steps - warmup if schedule.kind == "cosine" else round(schedule.decay * steps)
    if step < steps - decay or decay == 0:
        return peak
    left = max(0, steps - step) / decay
    share = left if schedule.kind == "wsd" else (1 + math.cos(math.pi * (1 - left))) / 2
    return peak * (schedule.floor + (1 - schedule.floor) * share)
