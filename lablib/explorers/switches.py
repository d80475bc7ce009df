"""What people ask "and if" about a pretraining: each switch alone, against the plan as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lablib.explorers import show
from lablib.explorers.view import Table
from lablib.plan import Estimate, estimate
from lablib.specs import Cluster, LabError, Parallelism, Pretrain

Change = Callable[[Pretrain], Pretrain]


def _field(**fields: object) -> Change:
    return lambda recipe: recipe.replace(**fields)


def _optimizer(kind: str) -> Change:
    return lambda recipe: recipe.replace(optimizer=recipe.optimizer.replace(kind=kind))


def _layout(change: Callable[[Parallelism], Parallelism]) -> Change:
    return lambda recipe: recipe.replace(parallelism=change(recipe.parallelism))


def _replicate(layout: Parallelism) -> Parallelism:
    if layout.dp_shard == 1:
        return layout
    return layout.replace(dp_shard=layout.dp_shard // 2, dp_replicate=layout.dp_replicate * 2)


SWITCHES: dict[str, Change] = {
    "no recomputation": _field(recompute="none"),
    "keep every second matmul": _field(recompute="selective-op"),
    "keep every matmul": _field(recompute="selective"),
    "recompute every layer": _field(recompute="full"),
    "chunked cross entropy": _field(cross_entropy="chunked"),
    "fused cross entropy": _field(cross_entropy="fused"),
    "compile": _field(compile=True),
    "optimiser states in host memory": _field(offload="optimizer"),
    "8-bit AdamW": _optimizer("adamw-8bit"),
    "half the sequence": lambda recipe: recipe.replace(seq_len=max(1, recipe.seq_len // 2)),
    "half the micro-batch": _layout(lambda it: it.replace(micro_batch_size=max(1, it.micro_batch_size // 2))),
    "twice the sharding": _layout(lambda it: it.replace(dp_shard=it.dp_shard * 2)),
    "two replicas of the shards (HSDP)": _layout(_replicate),
    "tensor parallelism over 2": _layout(lambda it: it.replace(tp=it.tp * 2)),
}


def switches(recipe: Pretrain, cluster: Cluster) -> Table:
    """A row for each switch that changes something and goes with the layout. Raises `LabError` where the plan itself
    does not."""
    plan = estimate(recipe, cluster)
    rows = tuple(_row(name, other, plan) for name, other in _others(recipe, cluster))
    caption = "Each switch alone, against this plan; time is seconds for the same tokens."
    return Table("What if", ("switch", "memory", "change", "time", "fits"), rows, caption)


def _others(recipe: Pretrain, cluster: Cluster) -> Iterator[tuple[str, Estimate]]:
    for name, change in SWITCHES.items():
        try:
            other = change(recipe)
            if other != recipe:
                yield name, estimate(other, _holding(cluster, other.gpus))
        except LabError:
            continue  # the switch does not go with this layout


def _holding(cluster: Cluster, gpus: int) -> Cluster:
    """The same machines, as many as the layout takes."""
    return cluster.replace(nodes=max(cluster.nodes, -(-gpus // cluster.gpus_per_node)))


def _row(name: str, other: Estimate, plan: Estimate) -> tuple[str, ...]:
    now, then = plan.memory.peak_gib, other.memory.peak_gib
    slower = (plan.tokens_per_second_per_gpu or 0) / (other.tokens_per_second_per_gpu or 1) - 1
    return (name, show.gib(then), f"{then - now:+.2g} GiB", f"{slower:+.0%}", "yes" if other.fits else "no")
