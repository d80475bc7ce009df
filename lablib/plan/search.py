"""`search_layouts`: every layout of a training step on a cluster, fastest first, with the reason why the others lose.

>>> from lablib import Cluster, search_layouts
>>> found = search_layouts("llama-3-70b", Cluster(accelerator="h100-sxm", nodes=8))
>>> found.best.recipe(tokens="1.4T")        # the object that is priced is the object that is submitted
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from lablib.plan import candidates
from lablib.plan import efficiency as constants
from lablib.plan.candidates import Columns
from lablib.plan.efficiency import Efficiency
from lablib.plan.found import FINE, FULL, NO_RATE, Found, Table
from lablib.plan.machine import Machine
from lablib.plan.memory import MARGIN
from lablib.plan.sweep import CAUSES, Settings, largest_part, sweep
from lablib.specs import Cluster, LabError, ModelSpec, catalog
from lablib.specs.units import parse_count

MICRO_BATCHES = (1, 2, 4, 8, 16)
"""Sequences at a time that are tried."""
SLICES = (1, 2, 4)
"""Slices of the model on each pipeline rank that are tried."""


def search_layouts(
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
    shared = Settings(optimizer=optimizer, compile=compile, cross_entropy=cross_entropy, offload=offload,
                      reduce_dtype=reduce_dtype, sequence_parallel=sequence_parallel, pp_schedule=pp_schedule)  # fmt: skip
    settings = _combined(shared, _several(precision), _several(recompute), _several(zero))
    tables = []
    for number in _numbers(gpus, cluster):
        columns = candidates.candidates(spec, number, micro_batch_sizes, virtual_stages)
        machine = Machine(cluster, efficiency or constants.of(cluster), processes=number)
        tables.append(_table(spec, columns, settings, machine, batch, length))
    return Found(spec, cluster, batch, length, settings, Table.joined(tables), top)


def _count(name: str, value: int | str) -> int:
    try:
        found = parse_count(value)
    except ValueError as error:
        raise LabError(f"{name}={value!r} {error}") from None
    if found < 1:
        raise LabError(f"{name}={value!r} must be greater than 0")
    return found


def _several[T](value: T | Sequence[T]) -> tuple[T, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)  # type: ignore[return-value,arg-type]


def _numbers(gpus: int | Sequence[int] | None, cluster: Cluster) -> tuple[int, ...]:
    wanted = (cluster.gpus,) if gpus is None else tuple(dict.fromkeys(_several(gpus)))
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
    known = {"precision": ("fp32", "bf16", "fp8"), "recompute": ("none", "selective", "selective-op", "selective-layer", "attention", "full"), "zero": (1, 2, 3)}  # fmt: skip
    for name, values in (("precision", precisions), ("recompute", recomputes), ("zero", zeros)):
        for value in values:
            if value not in known[name]:
                raise LabError(f"{name}={value!r}: choose among {', '.join(map(str, known[name]))}")
    fields = vars(shared)
    return tuple(
        Settings(**{**fields, "precision": precision, "recompute": recompute, "zero": zero})
        for precision, recompute, zero in product(precisions, recomputes, zeros)
    )


def _table(
    model: ModelSpec, columns: Columns, settings: tuple[Settings, ...], machine: Machine, batch: int, length: int
) -> Table:
    """Rows of one number of accelerators: all layouts under each combination of settings."""
    known = [one for one in settings if _rated(machine, one.precision)]
    if not known:
        machine.rate(settings[0].precision)
    why = candidates.obstacles(model, columns, batch, length)
    reason = np.full(len(columns["tp"]), FINE)
    for index, (_, rows) in reversed(list(enumerate(why))):
        reason[rows] = index
    runnable = np.flatnonzero(reason == FINE)
    able = candidates.select(columns, runnable)
    parts = [
        _priced(model, columns, runnable, able, one, index, reason, machine, batch, length)
        for index, one in enumerate(settings)
    ]
    return Table.joined(parts, [text for text, _ in why])


def _rated(machine: Machine, precision: str) -> bool:
    return all(
        machine.matmul_rate(name) is not None for name in {precision, "bf16" if precision == "fp8" else precision}
    )


def _priced(
    model: ModelSpec, columns: Columns, runnable: np.ndarray, able: Columns, settings: Settings, index: int,
    reason: np.ndarray, machine: Machine, batch: int, length: int,
) -> Table:  # fmt: skip
    rows = len(reason)
    made = Table.empty(columns, candidates.step_tokens(columns, batch, length), index, reason.copy())
    if not _rated(machine, settings.precision):
        made.reason[runnable] = NO_RATE
        return made
    if not len(runnable):
        return made
    found = sweep(model, able, settings, machine, batch, length)
    made.parts = np.full((len(CAUSES), rows), np.nan)
    made.parts[:, runnable], made.peak_gib[runnable] = found.parts, found.peak_gib
    full = 1 - found.peak_gib / machine.capacity_gib < MARGIN
    made.reason[runnable[full]] = FULL
    made.capacity_gib = machine.capacity_gib
    if full.any():
        names, which, size = largest_part(model, candidates.select(able, full), settings, machine, batch, length)
        made.memory_parts = names
        made.largest[runnable[full]], made.largest_gib[runnable[full]] = which, size
    return made


def settings_of(found: Found) -> Iterator[Settings]:
    """The combinations that were searched."""
    yield from found.settings
