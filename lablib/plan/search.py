"""`search_layouts`: every way to lay one training job out over a cluster, fastest first, with the reason others lose.

The planner's own formulas on arrays (`lablib.plan.grid`): all candidates of one recomputation policy and precision are
planned in one call, some 10⁵ of them in about a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from lablib.plan import efficiency as constants
from lablib.plan import memory, step
from lablib.plan.flops import backward_ratio, causal_context, forward
from lablib.plan.grid import Layouts
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.specs import Cluster, LabError, ModelSpec, Parallelism, Pretrain, catalog
from lablib.specs.units import parse_count

if TYPE_CHECKING:
    import pandas as pd

DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "micro_batch_size", "virtual_stages")
MICRO_BATCHES = (1, 2, 4, 8, 16)
SLICES = (1, 2, 4)
ROUNDING = 0.1
"""How far a step may lie from the batch that was asked for, as `Pretrain` has it."""
Array = np.ndarray[Any, Any]


def search_layouts(
    model: ModelSpec | str,
    cluster: Cluster,
    batch_tokens: int | str = "4M",
    seq_len: int = 8192,
    *,
    gpus: int | None = None,
    recompute: Sequence[str] = ("none", "selective", "full"),
    precision: Sequence[str] = ("bf16",),
    compile: bool = True,
    cross_entropy: str = "full",
    optimizer: str = "adamw",
) -> pd.DataFrame:
    """All layouts of `gpus` accelerators (default: the whole cluster) as a data frame, those that run first, fastest first.

    Columns: rank, the degrees of `Parallelism`, recompute, precision, tokens_per_second_per_gpu, step_seconds, mfu,
    peak_gib, fits and reason: why the row loses ("" for the fastest). Raises `LabError` for an unknown model, a batch
    that cannot be read, or a number of accelerators that the cluster does not have.
    """
    import pandas as pd

    spec = catalog.models[model] if isinstance(model, str) else model
    batch = _tokens(batch_tokens)
    size = gpus or cluster.gpus
    if not 0 < size <= cluster.gpus:
        raise LabError(f"gpus={size}: the cluster has {cluster.gpus}; take at most that many")
    layouts = np.array(list(_layouts(spec, size, seq_len, batch)), dtype=np.int64).T
    if not layouts.size:
        raise LabError(f"batch_tokens={batch} is less than one sequence of {seq_len} tokens; raise it or lower seq_len")
    machine = Machine(cluster, constants.of(cluster), 1, size)
    frames = []
    for policy, kind in product(recompute, precision):
        job = Job(spec, count(spec), Layouts(**dict(zip(DEGREES, layouts, strict=True))), seq_len, batch, kind, policy,
                  fused=compile, cross_entropy=cross_entropy, optimizer=optimizer)  # fmt: skip
        frames.append(_frame(job, machine, layouts))
    return _ranked(pd.concat(frames, ignore_index=True))


def recipe_of(row: Any, model: ModelSpec | str, tokens: int | str, batch_tokens: int | str = "4M", seq_len: int = 8192, **changes: Any) -> Pretrain:  # fmt: skip
    """The recipe of one row of `search_layouts`: what was searched is what is submitted."""
    layout = Parallelism(**{name: int(row[name]) for name in DEGREES})
    spec = catalog.models[model] if isinstance(model, str) else model
    spec = spec if spec.max_seq_len >= seq_len else spec.replace(max_seq_len=seq_len)
    settings = {"recompute": row["recompute"], "precision": row["precision"], "compile": True, **changes}
    return Pretrain(
        model=spec, tokens=tokens, seq_len=seq_len, batch_tokens=batch_tokens, parallelism=layout, **settings
    )


def rule_of_thumb(model: ModelSpec, cluster: Cluster) -> str:
    """What the guide (§8.4) recommends for a model of this size."""
    billions = count(model).total / 1e9
    domain = cluster.scaleup_domain
    advice = (
        "plain DDP" if billions < 1
        else "FSDP (ZeRO-3) with selective recomputation" if billions < 13
        else f"FSDP with tensor parallelism inside a node (2 to {min(8, domain)})" if billions < 70
        else "tensor, pipeline and data parallelism, sequence parallel for long context"
    )  # fmt: skip
    return f"{advice}, with expert parallelism" if model.moe else advice


def follows_rule(row: Any, model: ModelSpec) -> bool:
    """Whether a layout is what the guide's rule of thumb (§8.4) means for the model."""
    billions = count(model).total / 1e9
    if model.moe and row["ep"] == 1:
        return False
    if billions < 1:
        return bool(row["dp_shard"] == row["tp"] == row["pp"] == row["cp"] == 1)
    if billions < 13:
        return bool(row["tp"] == row["pp"] == row["cp"] == 1 and row["recompute"] == "selective")
    if billions < 70:
        return bool(row["pp"] == 1 and row["tp"] in (2, 4, 8))
    return bool(row["tp"] > 1 and row["pp"] > 1)


def _tokens(batch: int | str) -> int:
    try:
        return parse_count(batch)
    except ValueError as error:
        raise LabError(f"batch_tokens={batch!r} {error}") from None


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _layouts(model: ModelSpec, gpus: int, seq_len: int, batch: int) -> Iterator[tuple[int, ...]]:
    """The degrees of every candidate; those that no batch or model could use are never made."""
    for tp in (d for d in _divisors(gpus) if model.heads % d == 0 and model.ffn % d == 0):
        for pp in (d for d in _divisors(gpus // tp) if d <= model.layers):
            for cp in (d for d in _divisors(gpus // tp // pp) if seq_len % d == 0):
                dp = gpus // tp // pp // cp
                for shard, micro in product(_divisors(dp), MICRO_BATCHES):
                    if micro > 1 and micro * dp * seq_len > batch * (1 + ROUNDING):
                        break
                    slices = [v for v in SLICES if v == 1 or (pp > 1 and model.layers % (pp * v) == 0)]
                    for ep, v in product(_expert_degrees(model, shard * cp * tp), slices):
                        yield dp // shard, shard, tp, pp, cp, ep, micro, v


def _expert_degrees(model: ModelSpec, ranks: int) -> list[int]:
    return [d for d in _divisors(ranks) if model.moe and model.moe.experts % d == 0] if model.moe else [1]


def _frame(job: Job, machine: Machine, layouts: Array) -> pd.DataFrame:
    import pandas as pd

    layout, cluster = job.layout, machine.cluster
    per_round = job.seq_len * layout.micro_batch_size * layout.dp
    taken = np.maximum(1, np.rint(job.step_tokens / per_round)) * per_round
    parts = {
        name: np.broadcast_to(np.asarray(value, float), taken.shape)
        for name, value in step.seconds(job, machine).items()
    }
    seconds = np.sum(list(parts.values()), axis=0)
    rate = taken / seconds / layout.gpus
    needed = np.broadcast_to(memory.peak_bytes(job, machine.efficiency) / memory.GIB, taken.shape)
    fits = needed <= machine.capacity_gib * (1 - memory.MARGIN)
    off = np.abs(taken / job.step_tokens - 1) > ROUNDING
    made = pd.DataFrame(dict(zip(DEGREES, layouts, strict=True)))
    peak = cluster.accelerator.peak(job.precision)
    flops = sum(forward(job.model, causal_context(job.seq_len)).values()) * (1 + backward_ratio(False))
    made["recompute"], made["precision"] = job.recompute, job.precision
    made["tokens_per_second_per_gpu"], made["step_seconds"] = rate, seconds
    made["mfu"] = rate * flops / peak if peak else np.nan
    made["peak_gib"], made["fits"] = needed, fits & ~off
    made["reason"] = np.where(
        off, "the batch is not a multiple of its ranks' sequences", np.where(fits, "", _too_large(needed, machine))
    )
    for name, value in parts.items():
        made[f"_{name}"] = value * job.step_tokens / taken
    return made


def _too_large(needed: Array, machine: Machine) -> Array:
    capacity = f" GiB of {machine.capacity_gib:.0f}"
    return np.char.add(np.char.add("needs ", np.char.mod("%.0f", needed)), capacity)


def _ranked(found: pd.DataFrame) -> pd.DataFrame:
    """Sorted, with the reason that each slower layout is slower: the cause whose seconds grew most."""
    ordered = found.sort_values(["fits", "tokens_per_second_per_gpu"], ascending=[False, False], kind="stable")
    ordered = ordered.reset_index(drop=True)
    ordered.insert(0, "rank", np.arange(1, len(ordered) + 1))
    causes = [name for name in ordered.columns if name.startswith("_")]
    if ordered["fits"].any():
        best = ordered.iloc[0]
        extra = ordered[causes].to_numpy(float) - best[causes].to_numpy(float)
        worst = np.array([name[1:] for name in causes])[extra.argmax(axis=1)]
        slower = 100 * (best["tokens_per_second_per_gpu"] / ordered["tokens_per_second_per_gpu"].to_numpy() - 1)
        said = [
            f"{share:.0f} % slower: {cause}" if share >= 0.5 else "as fast"
            for share, cause in zip(slower, worst, strict=True)
        ]
        ordered["reason"] = np.where(ordered["fits"], said, ordered["reason"])
        ordered.loc[0, "reason"] = ""
    return ordered.drop(columns=causes)
