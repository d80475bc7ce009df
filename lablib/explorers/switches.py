"""What people ask "and if" about training, before and after pretraining: each switch alone, against the plan as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lablib.explorers import show
from lablib.explorers.view import Table
from lablib.plan import Estimate, estimate
from lablib.specs import Cluster, LabError, Parallelism, Pretrain
from lablib.specs.recipes import PostTrain

Trained = Pretrain | PostTrain
Change = Callable[[Trained], Trained]


def _field(**fields: object) -> Change:
    return lambda recipe: recipe.replace(**fields)


def _optimizer(kind: str) -> Change:
    def change(recipe: Trained) -> Trained:
        return recipe.replace(optimizer=recipe.optimizer.replace(kind=kind) if isinstance(recipe, Pretrain) else kind)

    return change


def _layout(change: Callable[[Parallelism], Parallelism]) -> Change:
    return lambda recipe: recipe.replace(parallelism=change(recipe.parallelism))


def _half_longest(recipe: Trained) -> Trained:
    if not isinstance(recipe, PostTrain):
        return recipe
    longest = min(recipe.longest_tokens or recipe.seq_len, recipe.seq_len) // 2
    return recipe.replace(longest_tokens=max(longest, recipe.mean_tokens or 1))


def _replicate(layout: Parallelism) -> Parallelism:
    if layout.dp_shard == 1:
        return layout
    return layout.replace(dp_shard=layout.dp_shard // 2, dp_replicate=layout.dp_replicate * 2)


SWITCHES: dict[str, Change] = {
    "no recomputation": _field(recompute="none"),
    "keep every second matmul": _field(recompute="selective-op"),
    "keep half the bytes (compiler's budget)": _field(recompute="budget"),
    "keep every matmul": _field(recompute="selective"),
    "recompute every layer": _field(recompute="full"),
    "chunked cross entropy": _field(cross_entropy="chunked"),
    "fused cross entropy": _field(cross_entropy="fused"),
    "compile": _field(compile=True),
    "optimiser states in host memory": _field(offload="optimizer"),
    "8-bit AdamW": _optimizer("adamw-8bit"),
    "rows packed": _field(packing=True),
    "half the longest sample": _half_longest,
    "reference computed beforehand": _field(precompute_reference=True),
    "a serving engine samples": _field(engine="vllm"),
    "half the sequence": lambda recipe: recipe.replace(seq_len=max(1, recipe.seq_len // 2)),
    "half the micro-batch": _layout(lambda it: it.replace(micro_batch_size=max(1, it.micro_batch_size // 2))),
    "twice the sharding": _layout(lambda it: it.replace(dp_shard=it.dp_shard * 2)),
    "two replicas of the shards (HSDP)": _layout(_replicate),
    "tensor parallelism over 2": _layout(lambda it: it.replace(tp=it.tp * 2)),
}


def switches(recipe: Trained, cluster: Cluster) -> Table:
    """A row for each switch that changes something and goes with the layout: of pretraining, SFT, preference, reward
    models, GRPO and PPO, each with the fields that it has. Raises `LabError` where the plan itself does not."""
    plan, same = estimate(recipe, cluster), "tokens" if isinstance(recipe, Pretrain) else "sequences"
    rows = tuple(_row(name, _slower(same, other, plan), other, plan) for name, other in _others(recipe, cluster))
    caption = f"Each switch alone, against this plan; time is accelerator-seconds for the same {same}."
    return Table("What if", ("switch", "memory", "change", "time", "fits"), rows, caption)


def _others(recipe: Trained, cluster: Cluster) -> Iterator[tuple[str, Estimate]]:
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


def _slower(same: str, other: Estimate, plan: Estimate) -> float:
    """Extra accelerator-time for the same tokens, or, where steps have the same sequences, for the same step."""
    if same == "tokens":
        return (plan.tokens_per_second_per_gpu or 0) / (other.tokens_per_second_per_gpu or 1) - 1
    return other.step_seconds * other.gpus / (plan.step_seconds * plan.gpus) - 1


def _row(name: str, slower: float, other: Estimate, plan: Estimate) -> tuple[str, ...]:
    now, then = plan.memory.peak_gib, other.memory.peak_gib
    return (name, show.gib(then), f"{then - now:+.2g} GiB", f"{slower:+.0%}", "yes" if other.fits else "no")
