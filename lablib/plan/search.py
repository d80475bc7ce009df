"""`find_layouts` (and `search_layouts`, its data frame): every layout of a training step on a cluster, fastest first, with the reason why the others lose.

>>> found = find_layouts("llama-3-70b", Cluster(accelerator="h100-sxm", nodes=8))
>>> found.best.recipe(tokens="1.4T")        # the object that is priced is the object that is submitted
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lablib.plan import candidates
from lablib.plan import efficiency as constants
from lablib.plan.candidates import Columns
from lablib.plan.efficiency import Efficiency
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.plan.found import Found
from lablib.plan.machine import Machine
from lablib.plan.memory import MARGIN
from lablib.plan.sweep import Settings, largest_part, sweep
from lablib.plan.trials import FINE, FULL, NO_RATE, Trials
from lablib.specs import Cluster, LabError, ModelSpec, Parallelism, catalog
from lablib.specs.recipe import CrossEntropy, Offload, Precision, Recompute
from lablib.specs.units import parse_count

if TYPE_CHECKING:
    import pandas as pd

MICRO_BATCHES = (1, 2, 4, 8, 16)
"""Sequences at a time that are tried."""
SLICES = (1, 2, 4)
"""Slices of the model on each pipeline rank that are tried."""
KNOWN: dict[str, tuple[object, ...]] = {
    "precision": get_args(Precision), "recompute": get_args(Recompute), "zero": (1, 2, 3), "optimizer": tuple(OPTIMIZER_BYTES),
    "cross_entropy": get_args(CrossEntropy), "offload": get_args(Offload), "reduce_dtype": ("fp32", "bf16"),
    "pp_schedule": get_args(Parallelism.model_fields["pp_schedule"].annotation),
}  # fmt: skip
"""What each setting may be."""


def find_layouts(
    model: ModelSpec | str,
    cluster: Cluster,
    batch_tokens: int | str = "4M",
    seq_len: int | str = 8192,
    *,
    precision: str | Sequence[str] = ("bf16",),
    recompute: str | Sequence[str] = ("none", "selective", "full"),
    zero: int | Sequence[int] = (3,),
    gpus: int | Sequence[int] | None = None,
    micro_batch_sizes: Sequence[int] = MICRO_BATCHES,
    virtual_stages: Sequence[int] = SLICES,
    optimizer: str = "adamw",
    compile: bool = True,
    cross_entropy: str = "full",
    offload: str = "none",
    reduce_dtype: str = "fp32",
    sequence_parallel: bool = True,
    pp_schedule: str = "1f1b",
    expert_imbalance: float = 1.0,
    efficiency: Efficiency | None = None,
    top: int | None = None,
) -> Found:
    """Price every factorisation of the cluster's accelerators into replicas × shards × tp × pp × cp, with every expert
    parallelism, micro-batch, interleaving, precision, recomputation and ZeRO stage.

    `gpus` takes fewer accelerators than the cluster has, or compares several numbers of them. `top` limits what the result
    shows and puts into its data frame; nothing is dropped from the search. Raises `LabError` for a batch or sequence that
    is no count, more accelerators than there are, and where no precision has a known rate.
    """
    spec = catalog.models[model] if isinstance(model, str) else model
    batch, length = _count("batch_tokens", batch_tokens), _count("seq_len", seq_len)
    compile = compile and not spec.traits.recurrent  # RWKV is not compiled (`lablib.train.able`)
    shared = Settings(optimizer=optimizer, compile=compile, cross_entropy=cross_entropy, offload=offload,
                      reduce_dtype=reduce_dtype, sequence_parallel=sequence_parallel, pp_schedule=pp_schedule,
                      expert_imbalance=expert_imbalance)  # fmt: skip
    if not 1 <= expert_imbalance < float("inf"):
        raise LabError(f"expert_imbalance={expert_imbalance} is the busiest rank's tokens over the mean: at least 1")
    settings = _combined(shared, _several(precision), _several(recompute), _several(zero))
    tables, experts = [], spec.moe.experts if spec.moe else 0
    sizes, slices = _sizes("micro_batch_sizes", micro_batch_sizes), _sizes("virtual_stages", virtual_stages)
    for number in _numbers(gpus, cluster):
        columns = candidates.candidates(experts, number, sizes, slices)
        machine = Machine(cluster, efficiency or constants.of(cluster), processes=number)
        tables.append(_table(spec, columns, settings, machine, batch, length))
    return Found(spec, cluster, batch, length, settings, Trials.joined(tables), top)


def search_layouts(model: ModelSpec | str, cluster: Cluster, batch_tokens: int | str = "4M", seq_len: int | str = 8192, **options: Any) -> pd.DataFrame:  # fmt: skip
    """`find_layouts` as a data frame, fastest first, with the reason why the others lose. Raises `LabError` as it does."""
    return find_layouts(model, cluster, batch_tokens, seq_len, **options).frame()


def _count(name: str, value: int | str) -> int:
    try:
        found = parse_count(value)
    except ValueError as error:
        raise LabError(f"{name}={value!r} {error}") from None
    if found < 1:
        raise LabError(f"{name}={value!r} must be greater than 0")
    return found


def _sizes(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if not values or any(value < 1 for value in values):
        raise LabError(f"{name}={list(values)}: give one or several whole numbers of at least 1")
    return tuple(values)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _numbers(gpus: int | Sequence[int] | None, cluster: Cluster) -> tuple[int, ...]:
    wanted = (cluster.gpus,) if gpus is None else tuple(dict.fromkeys(_several(gpus)))
    if not wanted:
        raise LabError(f"gpus={gpus}: give at least one number of accelerators, or leave it out for all {cluster.gpus}")
    for number in wanted:
        if not 1 <= number <= cluster.gpus:
            raise LabError(
                f"gpus={number}: the cluster has {cluster.gpus}; take between 1 and {cluster.gpus}, or more nodes"
            )
    return wanted


def _combined(
    shared: Settings, precisions: tuple[str, ...], recomputes: tuple[str, ...], zeros: tuple[int, ...]
) -> tuple[Settings, ...]:
    """Every combination of what is no degree, the shared fields apart. Raises `LabError` for a value that recipes lack."""
    fields = vars(shared)
    tried = {
        **{name: (value,) for name, value in fields.items()},
        "precision": precisions,
        "recompute": recomputes,
        "zero": zeros,
    }
    for name, known in KNOWN.items():
        if not tried[name]:
            raise LabError(f"{name}={tried[name]!r}: give at least one of {', '.join(map(str, known))}")
        for value in tried[name]:
            if value not in known:
                raise LabError(f"{name}={value!r}: choose among {', '.join(map(str, known))}")
    return tuple(
        Settings(**{**fields, "precision": precision, "recompute": recompute, "zero": zero})
        for precision, recompute, zero in product(precisions, recomputes, zeros)
    )


def _table(
    model: ModelSpec, columns: Columns, settings: tuple[Settings, ...], machine: Machine, batch: int, length: int
) -> Trials:
    """Rows of one number of accelerators: all layouts under each combination of settings."""
    if not any(_rated(machine, one.precision) for one in settings):
        machine.rate(settings[0].precision)
    why = candidates.obstacles(model, columns, batch, length)
    reason = np.full(len(columns["tp"]), FINE)
    for index, (_, rows) in reversed(list(enumerate(why))):
        reason[rows] = index
    tokens, words = candidates.step_tokens(columns, batch, length), [text for text, _ in why]
    tables = [Trials.unpriced(columns, tokens, index, reason, words) for index in range(len(settings))]
    for table, one in zip(tables, settings, strict=True):
        _price(model, table, one, machine, batch, length)
    return Trials.joined(tables)


def _rated(machine: Machine, precision: str) -> bool:
    needed = {precision, precision if precision == "fp32" else "bf16"}
    return all(machine.matmul_rate(name) is not None for name in needed)


def _price(model: ModelSpec, table: Trials, settings: Settings, machine: Machine, batch: int, length: int) -> None:
    """Fill in the figures of the rows that can run, and mark those that do not fit."""
    rows = np.flatnonzero(table.fits)
    if not _rated(machine, settings.precision):
        table.reason[rows] = NO_RATE
        return
    if not len(rows):
        return
    columns = candidates.select(table.columns, rows)
    found = sweep(model, columns, settings, machine, batch, length)
    table.parts[:, rows], table.peak_gib[rows] = found.parts, found.peak_gib
    table.capacity_gib[:] = machine.capacity_gib
    full = 1 - found.peak_gib / machine.capacity_gib < MARGIN
    table.reason[rows[full]] = FULL
    if full.any():
        parts = largest_part(model, candidates.select(columns, full), settings, machine, batch, length)
        table.memory_parts, table.largest[rows[full]], table.largest_gib[rows[full]] = parts
