"""Learning rate over steps, as pure functions of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from lablib.specs import Schedule


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of the 0-based `step` out of `steps`.

    Warm-up is linear over W = round(warmup·steps) steps and reaches the peak in its last one, so that no step is spent at
    zero. Then, with D the steps that decay and t = (steps - step) / D counting down from 1 towards 0, the rate is
    floor + (1 - floor)·s(t) of the peak. WSD stays at the peak until D = round(decay·steps) steps remain, then s = t
    (arXiv 2404.06395), or s = 1 - √(1 - t) with shape "1-sqrt" (arXiv 2405.18392); cosine and linear decay over all steps
    after the warm-up, s = (1 + cos(π·(1 - t))) / 2 (arXiv 1608.03983) and s = t; constant stays at the peak.
    The floor is reached where the run ends, not one step before it.
    """
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    lengths = {"wsd": round(schedule.decay * steps), "constant": 0}
    decay = lengths.get(schedule.kind, steps - warmup)
    if step < steps - decay or decay == 0:
        return peak
    left = max(0, steps - step) / decay
    share = left
    if schedule.kind == "cosine":
        share = (1 + math.cos(math.pi * (1 - left))) / 2
    elif schedule.kind == "wsd" and schedule.shape == "1-sqrt":
        share = 1 - math.sqrt(1 - left)
    return peak * (schedule.floor + (1 - schedule.floor) * share)
