"""Every way to lay a training step out over a number of accelerators, as arrays, and which of them cannot run at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lablib.plan.grid import Layouts
from lablib.specs import ModelSpec

Columns = dict[str, np.ndarray]
"""Equally long arrays of whole numbers by field of `Parallelism`."""
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp")
"""Their product is the number of accelerators."""
FIELDS = (*DEGREES, "ep", "micro_batch_size", "virtual_stages")
ROUNDING = 0.1
"""How far a step's tokens may lie from what was asked; `Pretrain` refuses more."""


@lru_cache(maxsize=256)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


@lru_cache(maxsize=64)
def factorisations(number: int, parts: int) -> np.ndarray:
    """Every ordered way to write `number` as a product of `parts` whole numbers, one in each row."""
    if parts == 1:
        return np.array([[number]])
    rest = [(first, factorisations(number // first, parts - 1)) for first in divisors(number)]
    return np.concatenate([np.column_stack([np.full(len(tail), first), tail]) for first, tail in rest])


def candidates(experts: int, gpus: int, micro_batch_sizes: Sequence[int], virtual_stages: Sequence[int]) -> Columns:
    """Every factorisation of `gpus` with each expert-parallel degree, micro-batch and number of interleaved slices that
    it has room for: `ep` divides the number of `experts` and dp_shard × cp × tp, and only pipelines are interleaved."""
    degrees = factorisations(gpus, len(DEGREES))
    parallel = [ep for ep in divisors(gpus) if ep == 1 or (experts and experts % ep == 0)]
    options = (np.array(parallel), np.array(sorted(set(micro_batch_sizes))), np.array(sorted(set(virtual_stages))))
    rows = np.indices((len(degrees), *(len(values) for values in options))).reshape(4, -1)
    made = dict(zip(DEGREES, degrees[rows[0]].T, strict=True))
    made |= {name: values[row] for name, values, row in zip(FIELDS[5:], options, rows[1:], strict=True)}
    keep = (made["dp_shard"] * made["cp"] * made["tp"]) % made["ep"] == 0
    keep &= (made["virtual_stages"] == 1) | (made["pp"] > 1)
    return select(made, keep)


def select(columns: Columns, rows: np.ndarray) -> Columns:
    """Some rows, by a mask or their numbers."""
    return {name: values[rows] for name, values in columns.items()}


def join(parts: Sequence[Columns]) -> Columns:
    """Rows of several tables under each other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def layouts(columns: Columns, zero: int, sequence_parallel: bool, pp_schedule: str, single: bool) -> Layouts:
    """The grid of these rows; `single` rows have one data-parallel rank, which the planner treats apart."""
    given: dict[str, object] = {name: columns[name] for name in FIELDS}
    if single:
        given |= {"dp_replicate": 1, "dp_shard": 1}
    return Layouts(**given, zero=zero, sequence_parallel=sequence_parallel, pp_schedule=pp_schedule)


def step_tokens(columns: Columns, batch_tokens: int, seq_len: int) -> np.ndarray:
    """Tokens of a step: `batch_tokens` in whole micro-batches on every rank, as `Pretrain.step_tokens`, and where stages
    are interleaved in multiples of `pp` micro-batches (arXiv 2104.04473 §2.2.2)."""
    whole = columns["dp_replicate"] * columns["dp_shard"] * columns["micro_batch_size"] * seq_len
    whole = whole * np.where(columns["virtual_stages"] > 1, columns["pp"], 1)
    made: np.ndarray = np.maximum(1, np.rint(batch_tokens / whole)).astype(int) * whole
    return made


def obstacles(model: ModelSpec, columns: Columns, batch_tokens: int, seq_len: int) -> list[tuple[str, np.ndarray]]:
    """(why, rows) for everything but memory that keeps a layout from running. `{name}` in a reason is the row's field."""
    tp, pp, cp, slices = (columns[name] for name in ("tp", "pp", "cp", "virtual_stages"))
    tokens = step_tokens(columns, batch_tokens, seq_len)
    widths = (("heads", model.heads), ("kv_heads", model.kv_heads), ("ffn", model.ffn))
    made = [(f"tp={{tp}} does not divide {name}={value}", value % tp != 0) for name, value in widths]
    made += [
        (f"pp={{pp}} is more than layers={model.layers}", pp > model.layers),
        (f"pp={{pp}} × virtual_stages={{virtual_stages}} does not divide layers={model.layers}", (slices > 1) & (model.layers % (pp * slices) != 0)),
        (f"cp={{cp}} does not divide seq_len={seq_len}", seq_len % cp != 0),
        (f"whole micro-batches of all ranks make steps of {{tokens}} tokens, not batch_tokens={batch_tokens}", np.abs(tokens / batch_tokens - 1) > ROUNDING),
    ]  # fmt: skip
    if model.recurrent:  # as lablib.train.able refuses them
        made += [(f"{name}={{{name}}}: layers with a recurrence cannot be divided so", columns[name] > 1) for name in ("tp", "pp", "cp")]  # fmt: skip
    return made
