"""Goodput: how much of a large run's wall time is useful steps, and what takes the rest.

A synchronous job stops when any of its accelerators does. What that costs follows from four numbers: how often they
fail, how long a checkpoint holds the job up, how often one is written, and how long a restart takes. Checkpoints are
written at Daly's optimum unless the recipe chooses otherwise (J. T. Daly, Future Generation Computer Systems 22, 2006;
J. W. Young, CACM 17, 1974). The formulas take plain numbers or arrays of them.

    >>> from lablib.plan import goodput
    >>> goodput.of(gpus=1024, checkpoint_bytes=12 * 70e9).effective.mid > 0.9
    True
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lablib.plan.grid import Number, choose, exp, least, most
from lablib.plan.ranges import Range
from lablib.specs import LabError, Spec


@dataclass(frozen=True)
class Reliability:
    """One published observation of interruptions."""

    name: str
    interruptions: float
    gpus: float
    hours: float
    source: str

    @property
    def rate(self) -> float:
        """Interruptions per accelerator-hour."""
        return self.interruptions / (self.gpus * self.hours)


PUBLISHED = (
    Reliability("RSC-2 (A100)", 2.34, 8, 24_000, "arXiv 2410.21680 §III: 2.34 failures per 1,000 node-days"),
    Reliability("SKT/Upstage (504 B200)", 10, 504, 55 * 24, "arXiv 2605.09370: 10 GPU failures in 55 days"),
    Reliability("Llama 3 405B (16,384 H100)", 419, 16384, 54 * 24, "arXiv 2407.21783 Table 5: 419 unexpected in 54 days"),
    Reliability("BLOOM (384 A100)", 1.5, 384, 7 * 24, "arXiv 2211.05100 §3.4.4: one or two GPU failures a week"),
    Reliability("RSC-1 (A100)", 1, 16384, 1.8, "arXiv 2410.21680 §III: 1.8 h between failures at 16,384 GPUs"),
    Reliability("Crusoe (1,600 H200)", 205, 1600, 4 * 730, "glennklockwood.com/garden/component-reliability, GTC 2025 talk"),
    Reliability("OPT-175B (992 A100)", 105, 992, 57 * 24, "arXiv 2205.01068 §2.5: 35 manual and over 70 automatic restarts in two months"),
)  # fmt: skip
"""From the most reliable to the least; `FAILURES` is their middle and their inner spread."""
FAILURES = Range(low=1.3e-5, mid=2.3e-5, high=5.5e-5)
"""Interruptions per accelerator-hour: median, and what four in five of `PUBLISHED` lie between."""
RESTART = Range(low=240, mid=600, high=1800)
"""Seconds from a failure to the next useful step: detection, replacing the node, queueing, loading. Llama 3 lost under a
tenth of 54 days to 466 interruptions, so at most 17 minutes each with the lost work (arXiv 2407.21783 §3.3.4);
auto-retries come at a median of 11 minutes (arXiv 2605.09370); restarts by hand take half an hour and more."""
STORAGE = 1.3e8
"""Bytes/s of checkpoint that a shared filesystem takes from each accelerator: Llama 3's sustains 2 TB/s for 16,384 GPUs
(arXiv 2407.21783 §3.3.1), BLOOM's wrote 2.3 TB from 384 in about 40 s (bigscience chronicles)."""
SNAPSHOT = 1e10
"""Bytes/s at which an asynchronous checkpoint copies its state to host memory, which alone holds the steps up: half of
PCIe 4 ×16's practical rate."""
CHECKPOINT_BYTES = 12
"""fp32 weights and AdamW's two moments, for each parameter."""
SHORTEST_INTERVAL = 300.0
"""Seconds: checkpoints more often than every five minutes are not worth their files."""
SLOW = Range(low=1.00, mid=1.31, high=1.83)
"""Wall time over the step model's time in uninterrupted steps: stragglers, data loading, a growing batch, hot days, and
kernels less tuned than those of published benchmarks. Of that Llama 3 saw 1 to 2 % by time of day alone (arXiv 2407.21783
§3.3.4), and MegaScale one machine in two hundred that is 10 % slower and slows the whole job (arXiv 2402.15627 §5). The
three figures are fitted on whole published runs (``python -m bench.planner.fit_runs``, 2026-11: families left out of the
fit one by one), so they hold the step model's own error too. Whole runs reach a median MFU of 0.34 where steady-state
tables of the same years say 0.40 to 0.55."""


class Goodput(Spec):
    """Useful share of wall time, and the rest by cause."""

    effective: Range
    """Share of wall time in steps that count; the band comes from the failure rate, restarts and slow steps."""
    parts: dict[str, float] = {}
    """Shares of wall time lost in the middle case, by cause; with `effective.mid` they add up to 1."""
    interval_seconds: float
    """Useful seconds between checkpoints: the chosen interval."""
    optimum_seconds: float
    """Daly's optimum."""
    save_seconds: float
    """How long one checkpoint holds the steps up."""
    hours_between_failures: float
    """Of the whole job."""

    def __str__(self) -> str:
        lost = ", ".join(f"{name} {share:.1%}" for name, share in self.parts.items() if share >= 5e-4)
        return f"{self.effective.mid:.1%} ({self.effective.low:.1%} to {self.effective.high:.1%}) useful; lost: {lost or 'nothing'}"


def save_seconds(size: Number, gpus: Number, bandwidth: float | None = None, asynchronous: bool = False) -> Number:
    """Seconds that a checkpoint of `size` bytes, written by `gpus` processes together, holds the steps up.

    `bandwidth` is bytes/s of the whole storage (None: `STORAGE` for each process). Asynchronous checkpoints hold the
    steps up only while the state is copied to host memory.
    """
    return size / (SNAPSHOT * gpus if asynchronous else bandwidth or STORAGE * gpus)


def young(save: Number, between_failures: Number) -> Number:
    """Young's interval between checkpoints, √(2·δ·M), in the unit of its arguments (CACM 17:530, 1974)."""
    return (2 * save * between_failures) ** 0.5


def daly(save: Number, between_failures: Number) -> Number:
    """Daly's higher-order interval, M where a checkpoint takes longer than 2·M (FGCS 22:303, 2006, eq. 37)."""
    ratio = (save / (2 * between_failures)) ** 0.5
    refined = young(save, between_failures) * (1 + ratio / 3 + ratio**2 / 9) - save
    return choose(save < 2 * between_failures, refined, between_failures)


def stretch(interval: Number, save: Number, restart: Number, between_failures: Number) -> Number:
    """Expected wall time over useful time where failures come at random and may also hit saves and restarts: Daly's
    complete model, M·e^(R/M)·(e^((τ+δ)/M) − 1)/τ (FGCS 22:303, 2006, eq. 20)."""
    exponent = least((interval + save) / between_failures, 50.0)
    return between_failures * exp(least(restart / between_failures, 50.0)) * (exp(exponent) - 1) / interval


def overhead(
    gpus: Number, save: Number, rate: float, restart: float, slow: float, interval: Number | None = None
) -> Number:
    """Wall time over useful time of a job; with arrays, of many at once. `interval=None` takes Daly's optimum."""
    between = 3600 / (rate * gpus)
    chosen = _optimum(save, between) if interval is None else interval
    return slow * stretch(chosen, save, restart, between)


def interruption(gpus: int, save: float, interval: float) -> float:
    """Seconds lost to failures and checkpoints for each useful one, in the middle case."""
    return float(overhead(gpus, save, FAILURES.mid, RESTART.mid, 1.0, interval)) - 1


HOPELESS = 10.0
"""Seconds lost for each useful one above which a run is said not to finish."""


def cost(lost: float) -> str:
    """What interruptions cost, in words: a share of the useful time, or that the run would not finish."""
    return f"failures cost {lost:.0%}" if lost < HOPELESS else "between failures it would hardly advance"


def _optimum(save: Number, between: Number) -> Number:
    return most(daly(save, between), SHORTEST_INTERVAL)


def of(
    gpus: int,
    checkpoint_bytes: float,
    interval: float | None = None,
    *,
    bandwidth: float | None = None,
    asynchronous: bool = False,
    failures: Range = FAILURES,
    restart: Range = RESTART,
    slow: Range = SLOW,
    evaluation: float = 0.0,
    ramp: float = 0.0,
    longest: float = math.inf,
) -> Goodput:
    """Goodput of a job on `gpus` accelerators.

    `interval`: useful seconds between checkpoints (None: Daly's optimum, at most `longest`, the whole run). `failures`:
    per accelerator-hour. `restart`: seconds. `evaluation`: seconds spent evaluating for each useful second. `ramp`:
    extra seconds for each useful one while the batch is still small. Raises `LabError` for what is not positive.
    """
    if gpus <= 0 or checkpoint_bytes < 0 or (interval is not None and interval <= 0):
        raise LabError(f"gpus={gpus}, checkpoint_bytes={checkpoint_bytes}, interval={interval}: give positive numbers")
    save = save_seconds(checkpoint_bytes, gpus, bandwidth, asynchronous)
    between = 3600 / (failures.mid * gpus)
    optimum = min(_optimum(save, between), longest)
    chosen = optimum if interval is None else min(interval, longest)

    def wall(rate: float, back: float, slowness: float) -> float:
        return overhead(gpus, save, rate, back, slowness, chosen) + slowness * (evaluation + ramp)

    middle = wall(failures.mid, restart.mid, slow.mid)
    least_, most_ = (
        math.hypot(*(math.log(wall(*values) / middle) for values in _one_by_one(failures, restart, slow, bound)))
        for bound in ("low", "high")
    )
    return Goodput(
        effective=Range(low=math.exp(-most_) / middle, mid=1 / middle, high=min(1.0, math.exp(least_) / middle)),
        parts=_lost(middle, slow.mid, evaluation, ramp, save / chosen, restart.mid / between),
        interval_seconds=chosen,
        optimum_seconds=optimum,
        save_seconds=save,
        hours_between_failures=between / 3600,
    )


def _one_by_one(failures: Range, restart: Range, slow: Range, bound: str) -> list[tuple[float, float, float]]:
    """The middle case with one cause at a time at its bound: independent causes join in quadrature."""
    return [
        (getattr(failures, bound), restart.mid, slow.mid),
        (failures.mid, getattr(restart, bound), slow.mid),
        (failures.mid, restart.mid, getattr(slow, bound)),
    ]


def _lost(
    wall: float, slow: float, evaluation: float, ramp: float, saving: float, restarting: float
) -> dict[str, float]:
    """Shares of wall time by cause; what failures repeat is what the other causes leave. A slow machine is slow in all of
    them, and "slow steps" is what it adds to the useful ones."""
    causes = {"checkpoints": saving, "restarts": restarting, "evaluation": evaluation, "ramp": ramp}
    parts = {**{name: slow * seconds for name, seconds in causes.items()}, "slow steps": slow - 1}
    parts["lost work"] = max(0.0, wall - 1 - sum(parts.values()))
    return {name: seconds / wall for name, seconds in parts.items()}


def simulate(
    gpus: int, save: float, restart: float, interval: float, rate: float, useful: float, runs: int = 64, seed: int = 0
) -> tuple[float, float]:
    """(mean, standard error) of wall time over useful time from an event simulation: the independent check of `stretch`.

    Each run draws exponential times to failure; a failure in an interval or its checkpoint repeats the interval after a
    restart, and a failure in a restart repeats the restart. `useful` is the run's useful seconds.
    """
    import numpy as np

    draw, between, segments = np.random.default_rng(seed), 3600 / (rate * gpus), max(1, round(useful / interval))
    walls = np.zeros(runs)
    for run in range(runs):
        pending, restarting = segments, False
        while pending:
            need = restart if restarting else interval + save
            until = draw.exponential(between)
            done = int(until // need)
            steps = min(done, 1 if restarting else pending)
            walls[run] += steps * need
            pending -= 0 if restarting else steps
            if restarting and steps:
                restarting = False
            elif pending:
                walls[run] += until - steps * need
                restarting = True
    ratio = walls / (segments * interval)
    return float(ratio.mean()), float(ratio.std(ddof=1) / runs**0.5)
