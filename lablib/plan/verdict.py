"""Does it fit, and what would mend it: the reasons a recipe cannot run on a cluster, each with the nearest remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lablib.plan import conventions, memory
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.work import Work
from lablib.specs import Parallelism, Recipe


def obstacles(recipe: Recipe, work: Work, machine: Machine) -> list[str]:
    """Why the recipe cannot run as laid out; empty where it can."""
    return [
        *_gpus(recipe, machine),
        *(reason for job in work.jobs for reason in _divides(job)),
        *_memory(work, machine),
    ]


def _gpus(recipe: Recipe, machine: Machine) -> Iterator[str]:
    cluster = machine.cluster
    if recipe.gpus > cluster.gpus and not machine.is_cpu:
        yield (
            f"the layout ({recipe.parallelism}) needs {recipe.gpus} GPUs but the cluster has {cluster.gpus}; "
            f"lower its degrees to a product of {cluster.gpus}, or take {-(-recipe.gpus // cluster.gpus_per_node)} nodes"
        )


def _divides(job: Job) -> Iterator[str]:
    model, layout = job.model, job.layout
    for name, value in (("heads", model.heads), ("kv_heads", model.kv_heads), ("ffn", model.ffn)):
        if value % layout.tp:
            yield f"tp={layout.tp} does not divide {name}={value}; {_nearest(value, layout.tp)} does"
    if layout.pp > model.layers:
        yield f"pp={layout.pp} is more than layers={model.layers}; use at most pp={model.layers}"
    if job.seq_len % layout.cp:
        yield f"cp={layout.cp} does not divide seq_len={job.seq_len}; {_nearest(job.seq_len, layout.cp)} does"
    if layout.ep > 1 and model.moe is None:
        yield f"ep={layout.ep} needs experts, which this model has not; set ep=1"
    elif model.moe and model.moe.experts % layout.ep:
        yield f"ep={layout.ep} does not divide experts={model.moe.experts}; {_nearest(model.moe.experts, layout.ep)} does"


def _nearest(value: int, wanted: int) -> int:
    """The divisor of `value` nearest to `wanted`."""
    return min((d for d in range(1, value + 1) if value % d == 0), key=lambda d: abs(d - wanted))


def _memory(work: Work, machine: Machine) -> Iterator[str]:
    used = work.memory
    if used.margin >= memory.MARGIN:
        return
    largest = max(used.parts, key=lambda name: used.parts[name])
    remedy = _remedy(work, machine)
    yield (
        f"needs {used.peak_gib:.1f} GiB of {used.capacity_gib:.0f} GiB a process (largest part: {largest}, "
        f"{used.parts[largest]:.1f} GiB); {remedy}"
    )


def _remedy(work: Work, machine: Machine) -> str:
    """The first single change that makes the plan fit, cheapest in speed first."""
    for job in work.jobs[:1]:
        for what, changed in _changes(job):
            if memory.peak(changed, machine.efficiency, machine.capacity_gib).margin >= memory.MARGIN:
                return f"{what} would fit"
    return "use more accelerators with dp_shard, a shorter sequence or a smaller model"


def _changes(job: Job) -> Iterator[tuple[str, Job]]:
    layout = job.layout
    assert isinstance(layout, Parallelism)
    size = layout.micro_batch_size
    while size > 1:
        size //= 2
        yield f"micro_batch_size={size}", replace(job, layout=layout.replace(micro_batch_size=size))
    if job.cross_entropy == "full":
        yield "cross_entropy='chunked'", replace(job, cross_entropy="chunked")
    smallest = layout.replace(micro_batch_size=1)
    for recompute in ("selective", "full"):
        if recompute != job.recompute and job.recompute != "full":
            yield f"recompute={recompute!r} with micro_batch_size=1", replace(job, layout=smallest, recompute=recompute)
    for factor in (2, 4, 8, 16, 32, 64):
        wider = smallest.replace(dp_shard=layout.dp_shard * factor)
        yield f"dp_shard={wider.dp_shard} with recompute='full'", replace(job, layout=wider, recompute="full")


def cautions(recipe: Recipe, work: Work, machine: Machine, mfu: float | None) -> Iterator[str]:
    """What the user should know although the plan can run."""
    yield from work.assumed
    layout, cluster = recipe.parallelism, machine.cluster
    if layout.tp > cluster.gpus_per_node and not machine.is_cpu:
        yield f"tp={layout.tp} crosses nodes of {cluster.gpus_per_node}; its all-reduces then run over the network"
    if machine.is_cpu and recipe.gpus * recipe.threads > cluster.gpus:
        yield f"{recipe.gpus} processes × {recipe.threads} threads share {cluster.gpus} cores; it runs, but no faster"
    if mfu is not None and recipe.stage == "pretrain" and not machine.is_cpu:
        yield from filter(None, [conventions.verdict(mfu)])
