"""`Trials`: the priced candidates of a layout search as arrays, one entry a candidate, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lablib.plan.candidates import DEGREES, Columns, join
from lablib.plan.sweep import CAUSES

FINE, FULL, NO_RATE = -1, -2, -3
"""Reasons: none, too little memory, a precision without a known rate; others are numbers of `Trials.why`."""
SAME = 6
"""Digits to which two throughputs are the same: the simpler layout then goes first."""


@dataclass
class Trials:
    """Figures are NaN where a candidate was not priced."""

    columns: Columns
    tokens: np.ndarray
    """Of one step."""
    setting: np.ndarray
    """Number of its combination of precision, recomputation and ZeRO stage."""
    reason: np.ndarray
    parts: np.ndarray
    """Seconds of one step by cause, (causes, rows)."""
    peak_gib: np.ndarray
    capacity_gib: np.ndarray
    largest: np.ndarray
    """Number of the largest part of its memory, where it does not fit."""
    largest_gib: np.ndarray
    why: list[str] = field(default_factory=list)
    memory_parts: list[str] = field(default_factory=list)

    @classmethod
    def unpriced(cls, columns: Columns, tokens: np.ndarray, setting: int, reason: np.ndarray, why: list[str]) -> Trials:
        """Candidates of one combination of settings before any figure is known."""
        rows = len(tokens)
        empty = np.full(rows, np.nan)
        return cls(
            columns=columns,
            tokens=tokens,
            setting=np.full(rows, setting),
            reason=reason.copy(),
            parts=np.full((len(CAUSES), rows), np.nan),
            peak_gib=empty.copy(),
            capacity_gib=empty.copy(),
            largest=np.zeros(rows, dtype=int),
            largest_gib=empty.copy(),
            why=why,
        )

    @classmethod
    def joined(cls, tables: Sequence[Trials]) -> Trials:
        """Tables of one model under each other."""
        names = ("tokens", "setting", "reason", "peak_gib", "capacity_gib", "largest", "largest_gib")
        arrays = {name: np.concatenate([getattr(table, name) for table in tables]) for name in names}
        return cls(
            columns=join([table.columns for table in tables]),
            parts=np.concatenate([table.parts for table in tables], axis=1),
            why=tables[0].why,
            memory_parts=next((table.memory_parts for table in tables if table.memory_parts), []),
            **arrays,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def gpus(self) -> np.ndarray:
        """Accelerators of each candidate."""
        made: np.ndarray = np.prod([self.columns[name] for name in DEGREES], axis=0)
        return made

    @property
    def seconds(self) -> np.ndarray:
        """Of one step."""
        made: np.ndarray = self.parts.sum(axis=0)
        return made

    @property
    def fits(self) -> np.ndarray:
        """Whether it can run."""
        made: np.ndarray = self.reason == FINE
        return made

    def order(self) -> np.ndarray:
        """Row numbers: those that run, most tokens a second first (of equals the simplest); then those that do not fit,
        nearest first; then those that cannot run at all."""
        fits, full = self.fits, self.reason == FULL
        rate = np.where(fits, self.tokens / self.seconds, 0.0)
        best = rate.max() if len(rate) and rate.max() > 0 else 1.0
        complexity = np.sum([self.columns[name] > 1 for name in (*DEGREES, "ep", "virtual_stages")], axis=0)
        group = np.where(fits, 0, np.where(full, 1, 2))
        inside = np.where(fits, -np.round(rate / best, SAME), np.where(full, np.nan_to_num(self.peak_gib), self.reason))
        made: np.ndarray = np.lexsort((np.nan_to_num(self.peak_gib), complexity, inside, group))
        return made
