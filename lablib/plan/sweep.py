"""Step time and peak memory of a whole table of layouts at once, by the formulas that price a single plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lablib.plan import candidates, memory, step
from lablib.plan.candidates import Columns
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.specs import ModelSpec

CAUSES = (
    "compute",
    "attention",
    "elementwise",
    "launch",
    "tp",
    "cp",
    "ep",
    "pp",
    "dp",
    "bubble",
    "optimizer",
    "offload",
)
"""What `lablib.plan.step.seconds` divides a step into."""


@dataclass(frozen=True)
class Settings:
    """What all layouts of a table have in common: the fields of `Pretrain` and `Parallelism` that are no degrees."""

    precision: str = "bf16"
    recompute: str = "none"
    zero: int = 3
    optimizer: str = "adamw"
    compile: bool = True
    cross_entropy: str = "full"
    offload: str = "none"
    reduce_dtype: str = "fp32"
    sequence_parallel: bool = True
    pp_schedule: str = "1f1b"
    expert_imbalance: float = 1.0


class Sweep(NamedTuple):
    """One entry a row."""

    parts: np.ndarray
    """Seconds of a step by cause, shape (causes, rows), in the order of `CAUSES`."""
    peak_gib: np.ndarray

    @property
    def seconds(self) -> np.ndarray:
        """Of one step."""
        made: np.ndarray = self.parts.sum(axis=0)
        return made


def jobs(
    model: ModelSpec, columns: Columns, settings: Settings, batch_tokens: int, seq_len: int
) -> list[tuple[np.ndarray, Job]]:
    """(rows, their grid as a job): layouts with one data-parallel rank and the others, which are computed differently."""
    single = columns["dp_replicate"] * columns["dp_shard"] == 1
    tokens = candidates.step_tokens(columns, batch_tokens, seq_len)
    made = []
    for alone in (True, False):
        rows = np.flatnonzero(single == alone)
        if len(rows):
            grid = candidates.layouts(
                candidates.select(columns, rows), settings.zero, settings.sequence_parallel, settings.pp_schedule, alone
            )
            made.append((rows, _job(model, grid, settings, tokens[rows], seq_len)))
    return made


def _job(model: ModelSpec, grid: object, settings: Settings, tokens: np.ndarray, seq_len: int) -> Job:
    return Job(
        model=model,
        params=count(model),
        layout=grid,  # type: ignore[arg-type]
        seq_len=seq_len,
        step_tokens=tokens,
        precision=settings.precision,
        recompute=settings.recompute,
        fused=settings.compile,
        optimizer=settings.optimizer,
        cross_entropy=settings.cross_entropy,
        offload=settings.offload,
        reduce_dtype=settings.reduce_dtype,
        expert_imbalance=settings.expert_imbalance,
    )


def sweep(
    model: ModelSpec, columns: Columns, settings: Settings, machine: Machine, batch_tokens: int, seq_len: int
) -> Sweep:
    """Seconds and GiB of every row. Raises `LabError` where the precision's rate is unknown."""
    rows = len(columns["tp"])
    parts, peak = np.zeros((len(CAUSES), rows)), np.zeros(rows)
    for where, job in jobs(model, columns, settings, batch_tokens, seq_len):
        for cause, seconds in step.seconds(job, machine).items():
            parts[CAUSES.index(cause), where] += seconds
        peak[where] = memory.peak_bytes(job, machine.efficiency) / memory.GIB
    return Sweep(parts, peak)


def largest_part(
    model: ModelSpec, columns: Columns, settings: Settings, machine: Machine, batch_tokens: int, seq_len: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the parts of memory, which of them is largest at each row's peak, its GiB)."""
    names: list[str] = []
    which, size = np.zeros(len(columns["tp"]), dtype=int), np.zeros(len(columns["tp"]))
    for where, job in jobs(model, columns, settings, batch_tokens, seq_len):
        one = job.layout.pp == 1
        ends = (memory.moments(job, first=1, last=one * 1), memory.moments(job, first=one * 1, last=1))
        names = list(ends[0]["loss"])
        every = [_stacked(parts, names, len(where)) for end in ends for parts in end.values()]
        tables = np.stack(every)  # (stage and moment, part, row)
        fullest = tables[tables.sum(axis=1).argmax(axis=0), :, np.arange(len(where))]
        which[where], size[where] = fullest.argmax(axis=1), fullest.max(axis=1) / memory.GIB
    return names, which, size


def _stacked(parts: dict[str, object], names: list[str], rows: int) -> np.ndarray:
    return np.stack([np.broadcast_to(np.asarray(parts[name], dtype=float), rows) for name in names])
