"""The fastest layout of one model on each of several numbers of accelerators: a layout search without its table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lablib.plan import candidates
from lablib.plan.candidates import DEGREES, FIELDS, Columns
from lablib.plan.machine import Machine
from lablib.plan.memory import MARGIN
from lablib.plan.sweep import Settings, sweep
from lablib.specs import Cluster, ModelSpec, Parallelism

WIDEST = {"tp": 8, "pp": 32}
"""Largest degrees that are tried."""
LONG = 32_768
"""Tokens of a sequence from which on context parallelism is tried."""
MICRO_BATCHES = (1, 2, 4, 8)


class Fastest(NamedTuple):
    """The best that one number of accelerators can do."""

    gpus: int
    tokens_per_second: float
    """Of all accelerators."""
    step_tokens: int
    settings: Settings
    degrees: dict[str, int]

    @property
    def parallelism(self) -> Parallelism:
        """The layout."""
        return Parallelism(**self.degrees, sequence_parallel=self.degrees["tp"] > 1)


class Raced(NamedTuple):
    """What `race` found."""

    fastest: list[Fastest]
    """For each number of accelerators on which any layout fits."""
    least_gib: float
    """The least memory that any layout takes; infinite where no layout divides the model and the batch."""


def numbers(cluster: Cluster) -> tuple[int, ...]:
    """Powers of two up to the whole cluster, and the cluster itself."""
    powers = [2**power for power in range(cluster.gpus.bit_length())]
    return tuple(sorted({*powers, cluster.gpus}))


def race(
    model: ModelSpec,
    machine: Machine,
    gpus: Sequence[int],
    settings: Sequence[Settings],
    batch_tokens: int,
    seq_len: int,
) -> Raced:
    """Price the usual layouts on every number of `gpus` and keep each one's fastest that fits. Raises `LabError` where a
    precision's rate is unknown."""
    # Processes of a CPU share one machine, so each number of them is a machine of its own.
    groups = [(number,) for number in gpus] if machine.is_cpu else [tuple(gpus)]
    made: list[Fastest] = []
    least = float("inf")
    for group in groups:
        shared = Machine(machine.cluster, machine.efficiency, machine.threads, group[0])
        found = _race(model, shared, group, settings, batch_tokens, seq_len)
        made, least = made + found.fastest, min(least, found.least_gib)
    return Raced(made, least)


def _race(
    model: ModelSpec, machine: Machine, gpus: tuple[int, ...], settings: Sequence[Settings], batch: int, seq_len: int
) -> Raced:
    columns = _able(model, gpus, batch, seq_len)
    total = np.prod([columns[name] for name in DEGREES], axis=0)
    if not len(total):
        return Raced([], float("inf"))
    tokens = candidates.step_tokens(columns, batch, seq_len)
    found = [sweep(model, columns, one, machine, batch, seq_len) for one in settings]
    fits = np.stack([1 - one.peak_gib / machine.capacity_gib >= MARGIN for one in found])
    rate = np.where(fits, np.stack([tokens / one.seconds for one in found]), 0.0)
    made = []
    for number in gpus:
        here = np.where(total == number, rate, 0.0)
        setting, row = (int(place) for place in np.unravel_index(here.argmax(), here.shape))
        if here[setting, row] > 0:
            degrees = {name: int(columns[name][row]) for name in FIELDS}
            made.append(Fastest(number, float(here[setting, row]), int(tokens[row]), settings[setting], degrees))
    return Raced(made, min(float(one.peak_gib.min()) for one in found))


def _able(model: ModelSpec, gpus: tuple[int, ...], batch: int, seq_len: int) -> Columns:
    """The usual layouts that divide the model and the batch."""
    experts = model.moe.experts if model.moe else 0
    columns = candidates.join([_usual(number, experts, seq_len >= LONG) for number in gpus])
    able = np.ones(len(columns["tp"]), dtype=bool)
    for _, rows in candidates.obstacles(model, columns, batch, seq_len):
        able &= ~rows
    return candidates.select(columns, able)


@lru_cache(maxsize=512)
def _usual(gpus: int, experts: int, long: bool) -> Columns:
    """Layouts without extremes."""
    columns = candidates.candidates(experts, gpus, MICRO_BATCHES, (1,))
    keep = (columns["tp"] <= WIDEST["tp"]) & (columns["pp"] <= WIDEST["pp"])
    return candidates.select(columns, keep if long else keep & (columns["cp"] == 1))
