"""Why one layout loses to another, in words: what keeps it from running, or which cause makes it slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lablib.plan.candidates import FIELDS
from lablib.plan.sweep import CAUSES, Settings
from lablib.plan.trials import FINE, FULL, NO_RATE, Trials
from lablib.specs.units import show_count, show_seconds

KERNELS = ("compute", "attention", "elementwise", "launch")
"""Causes that recomputation, small matmuls and other precisions change."""
WORDS = {
    "tp": "tensor-parallel communication", "cp": "context-parallel communication", "ep": "expert all-to-all",
    "pp": "sends between pipeline stages", "dp": "data-parallel communication", "bubble": "pipeline bubble",
    "optimizer": "optimiser step", "offload": "offloading to host memory",
}  # fmt: skip
GROUPS = ("kernels", *WORDS)
EFFORT = {
    name: rank
    for rank, name in enumerate(("none", "attention", "selective", "selective-op", "budget", "selective-layer", "full"))
}
"""Recomputation policies by how much they repeat."""


def texts(trials: Trials, indices: np.ndarray, best: int, settings: Sequence[Settings]) -> list[str]:
    """A reason for each of some rows against the row `best`."""
    slower, cause, extra = _slower(trials, indices, best)
    made = []
    for place, index in enumerate(indices):
        code = trials.reason[index]
        if code == FINE:
            made.append(_compared(trials, index, best, settings, slower[place], cause[place], extra[place]))
        elif code == FULL:
            part = trials.memory_parts[trials.largest[index]]
            made.append(
                f"does not fit: needs {trials.peak_gib[index]:.1f} of {trials.capacity_gib[index]:.4g} GiB "
                f"(largest part: {part}, {trials.largest_gib[index]:.1f} GiB)"
            )
        elif code == NO_RATE:
            made.append(f"no rate is known for {settings[trials.setting[index]].precision} on this accelerator")
        else:
            made.append(_impossible(trials, index))
    return made


def _impossible(trials: Trials, index: int) -> str:
    row = {name: int(trials.columns[name][index]) for name in FIELDS}
    return trials.why[trials.reason[index]].format(**row, tokens=show_count(int(trials.tokens[index])))


def _grouped(trials: Trials, rows: np.ndarray) -> np.ndarray:
    """GPU-seconds a token by group of causes, (groups, rows)."""
    each = trials.parts[:, rows] * trials.gpus[rows] / trials.tokens[rows]
    kernels = each[[CAUSES.index(cause) for cause in KERNELS]].sum(axis=0)
    return np.vstack([kernels, *(each[CAUSES.index(cause)] for cause in WORDS)])


def _slower(trials: Trials, indices: np.ndarray, best: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(how much more time a token takes, the group that adds most, what it alone adds), shares of the best's time."""
    mine, least = _grouped(trials, indices), _grouped(trials, np.array([best]))
    over = np.nan_to_num((mine - least) / least.sum())
    return over.sum(axis=0), over.argmax(axis=0), over.max(axis=0)


def _compared(
    trials: Trials, index: int, best: int, settings: Sequence[Settings], slower: float, group: int, extra: float
) -> str:
    if index == best:
        return "the fastest"
    if slower < 5e-4:
        return "as fast"
    if GROUPS[group] != "kernels":
        name = WORDS[GROUPS[group]]
    else:
        mine, first = (settings[trials.setting[row]] for row in (index, best))
        again = EFFORT[mine.recompute] > EFFORT[first.recompute]
        name = (
            "recomputation"
            if again
            else f"{mine.precision} kernels"
            if mine.precision != first.precision
            else "less efficient kernels"
        )
    return f"{_percent(slower)} slower: {name} (+{_percent(extra)})"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


HEADS = {"rank": "rank", "layout": "layout", "micro_batch_size": "micro-batch", "recompute": "recompute", "precision": "precision",
         "tokens_per_second_per_gpu": "tokens/s/GPU", "step_seconds": "step", "mfu": "MFU", "peak_gib": "GiB", "reason": "reason"}  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(column names, cells) of rows of `Found.rows`, as people read them."""
    return list(HEADS.values()), [[_cell(name, row) for name in HEADS] for row in rows]


def _cell(name: str, row: dict[str, Any]) -> str:
    if name == "layout":
        degrees = [f"{field}={row[field]}" for field in FIELDS if field != "micro_batch_size" and row[field] > 1]
        return " ".join(degrees) or "one device"
    value = row[name]
    if value is None:
        return ""
    if name == "tokens_per_second_per_gpu":
        return f"{value:,.0f}"
    if name == "step_seconds":
        return show_seconds(value)
    return f"{value:.1%}" if name == "mfu" else f"{value:.1f}" if name == "peak_gib" else str(value)
