"""Seconds of each kind of parallelism's communication in a step, and how much of it compute hides.

Sizes are of one rank; `layers` is how many layers its pipeline stage has. Sources of what is sent: tensor parallelism
arXiv 1909.08053 §3 and 2205.05198 §4.2.2, experts arXiv 2006.16668, FSDP arXiv 2304.11277 §3.2, ZeRO arXiv 1910.02054 §7,
pipelines arXiv 2104.04473 §2.2.
"""

from __future__ import annotations

from lablib.plan import anatomy
from lablib.plan.collectives import all_to_all, point, ring
from lablib.plan.grid import Number, choose, most
from lablib.plan.job import Job
from lablib.plan.kernels import QUANTISING, REPEATS
from lablib.plan.machine import Machine, strides


def tensor_parallel(job: Job, machine: Machine, layers: Number | None = None) -> Number:
    """Two all-reduces a layer forward and two backward (each a reduce-scatter and an all-gather, which is all that
    sequence parallelism does), those of repeated passes again; `Engine.tp_overlap` of it is hidden."""
    tp = job.layout.tp
    size = job.micro_tokens * job.model.hidden * job.width
    again = REPEATS[job.recompute][0]
    count = (4 + 2 * again) * (job.model.layers * job.stage_share if layers is None else layers)
    return count * 2 * ring(size, tp, 1, machine) * (1 - job.engine.tp_overlap)


def context_parallel(job: Job, machine: Machine, attention: Number, layers: Number) -> Number:
    """Keys and values passed round the group in each layer, forward and again backward with their gradients; a ring
    hides behind the attention it feeds, all but its first step."""
    cp, model = job.layout.cp, job.model
    each = model.kv_heads * (model.head_dim + anatomy.value_dim(model))
    size = job.micro_tokens * cp * each * job.width / job.layout.tp
    whole = 3 * ring(size, cp, strides(job.layout)["cp"], machine) * layers
    return choose(cp > 1, most(whole / most(1, cp - 1), whole - attention * machine.efficiency.overlap), 0.0)


def expert_parallel(job: Job, machine: Machine, layers: Number) -> Number:
    """All-to-all of each token's `top_k` copies to the experts and back, forward and backward, where the tokens of a
    tensor-parallel group are divided among its ranks and the busiest one's arrive last; `Engine.ep_overlap` of it is hidden."""
    ep, moe = job.layout.ep, job.model.moe
    if moe is None:
        return 0.0
    size = job.micro_tokens / job.layout.tp * moe.top_k * job.model.hidden * job.width * job.crowd
    share = anatomy.layers(job.model).moe / job.model.layers
    again = REPEATS[job.recompute][0]
    whole = (4 + 2 * again) * all_to_all(size, ep, 1, machine, moe.top_k, job.engine.ep_once) * layers * share
    return whole * (1 - job.engine.ep_overlap)


def pipeline(job: Job, machine: Machine) -> Number:
    """One micro-batch's activations handed forward and gradients handed back at each boundary of a stage's slices."""
    layout = job.layout
    size = job.micro_tokens * job.model.hidden * job.width / (1 if job.engine.pp_whole else layout.tp)
    once = point(size, layout.pp, strides(layout)["pp"], machine)
    return choose(layout.pp > 1, 2 * layout.virtual_stages * once * (1 - job.engine.pp_overlap), 0.0)


def data_parallel(job: Job, machine: Machine, compute: Number, layers: Number) -> Number:
    """Seconds a step of collectives over parameters and gradients, as far as `compute` seconds do not hide them.

    ZeRO-3 gathers the weights for the forward and the backward pass of every micro-batch and scatters its gradients;
    ZeRO-1 and -2 scatter gradients and gather parameters once a step; replicas all-reduce their share once a step. What
    is hidden still slows the compute beside it (`Efficiency.contention`), and the first layer's share always shows.
    """
    sharded, once = _traffic(job, machine)
    whole = sharded + once
    reach = compute * job.engine.overlap
    # What happens once a step hides behind one micro-batch, the last or the first, at most.
    exposed = most(0.0, sharded - reach) + most(0.0, once - reach / job.micro_batches)
    first = whole / most(1.0, layers) / job.micro_batches
    shown = most(exposed, first)
    return choose(whole > 0, shown + machine.efficiency.contention * (whole - shown), 0.0)


def held(job: Job) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
    """Parameters of the fullest stage on one tensor- and expert-parallel rank, and over how many ranks ZeRO divides
    them: (all but the experts, the experts).

    With expert parallelism an expert is whole on one of the `ep` ranks, tensor-parallel ones among them, so fewer ranks
    share it.
    """
    parts, layout = job.params.parts, job.layout
    experts = parts.get("experts", 0)
    embedding, head = parts.get("embedding", 0), parts.get("head", 0)
    ends = choose(layout.pp > 1, max(embedding, head), embedding + head)
    dense = ((sum(parts.values()) - experts - embedding - head) * job.stage_share + ends) / layout.tp
    spread = choose(layout.ep > 1, layout.ep, layout.tp)
    fewer = most(1, job.shards * choose(layout.ep > 1, layout.tp, 1) // layout.ep)
    return (dense, job.shards), (experts * job.stage_share / spread, fewer)


def dealing(job: Job, machine: Machine, ranks: Number) -> Number:
    """Seconds in which the shards of the matrices inside the blocks go to their owners among `ranks` and come back, fp32
    (`lablib.train.rules.dealing`), and over replicas once more. Between CPU processes gloo gathers instead."""
    layout, parts = job.layout, job.params.parts
    inside = sum(parts.values()) - sum(parts.get(name, 0) for name in ("embedding", "head", "experts"))
    own = 4 * inside * job.stage_share / (layout.tp * job.shards)
    members = layout.tp * job.shards
    there = ring(own * members, members, 1, machine) if machine.is_cpu else all_to_all(own, members, 1, machine)
    back = ring(own, layout.dp_replicate, strides(layout)["replicate"], machine)
    return choose(ranks > 1, 2 * there + back, 0.0)


def _traffic(job: Job, machine: Machine) -> tuple[Number, Number]:
    """Seconds of what every micro-batch sends and of what is sent once a step."""
    layout, place = job.layout, strides(job.layout)
    trained = job.params.trainable / job.params.total
    gradient = 4 if job.reduce_dtype == "fp32" else 2
    weight = 1 if job.engine.quantised_gather and job.precision in QUANTISING else job.width
    apart = choose(layout.ep > 1, layout.ep, place["shard"])
    sharded: Number = 0.0
    once: Number = 0.0
    groups = zip(held(job), (place["shard"], apart), strict=True)
    for (size, members), stride in groups if job.model.moe else [(held(job)[0], place["shard"])]:
        byte = ring(size, members, stride, machine, job.engine.one_card)
        if layout.zero == 3:
            sharded = sharded + job.micro_batches * byte * (2 * weight + trained * gradient)
        else:
            once = once + byte * trained * (weight + gradient)
        once = once + 2 * ring(size / members * trained * gradient, layout.dp_replicate, place["replicate"], machine)
    return sharded, once
