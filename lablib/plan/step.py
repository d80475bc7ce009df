"""How long one optimiser step takes: a roofline for each class of kernel, plus communication that is not hidden.

Seconds by cause, of the fullest pipeline stage, which the others wait for. `lablib.plan.kernels` has the kernels and
`lablib.plan.communication` the collectives; on CPU cores `lablib.plan.cpu_kernels` stands in for the former.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from lablib.plan import anatomy, communication, cpu_kernels, flops, kernels, offloading
from lablib.plan.cpu_kernels import update_bytes
from lablib.plan.grid import Number, ceil, choose, log2, most
from lablib.plan.job import Job
from lablib.plan.kernels import REPEATS
from lablib.plan.machine import Machine
from lablib.specs import ModelSpec

NEWTON_SCHULZ = 5
"""Iterations of Muon's orthogonalisation (kellerjordan.github.io/posts/muon)."""
ZERO_BUBBLE = 1 / 3
"""A zero-bubble schedule's share of 1F1B's bubble where weight gradients fill two thirds of it (arXiv 2401.10241 §2)."""


def seconds(job: Job, machine: Machine) -> dict[str, Number]:
    """Seconds of one step by cause, which add up. Raises `LabError` where the precision's rate is unknown."""
    compute, layers = _stage(job, machine)
    times = job.micro_batches
    sent = {
        "tp": communication.tensor_parallel(job, machine, layers),
        "cp": communication.context_parallel(job, machine, compute["attention"], layers),
        "ep": communication.expert_parallel(job, machine, layers),
        "pp": communication.pipeline(job, machine),
    }
    worked = sum(compute.values())
    busy = times * (worked + sum(sent.values()))
    sharing = communication.data_parallel(job, machine, times * worked, layers)
    slowest = machine.efficiency.straggler * log2(most(1, job.layout.gpus)) * busy
    return {
        **{name: value * times for name, value in compute.items()},
        **{name: value * times for name, value in sent.items()},
        "dp": sharing + (0.0 if machine.is_cpu else slowest),
        "bubble": busy * bubble_share(job),
        "optimizer": optimizer(job, machine),
        **({} if job.offload == "none" else {"offload": offloading.seconds(job, machine, times * worked, layers)}),
    }


def micro_batch(job: Job, machine: Machine) -> dict[str, Number]:
    """Seconds by cause of one micro-batch's forward and backward pass on the fullest stage, without communication."""
    return _stage(job, machine)[0]


def forward(job: Job) -> dict[str, Number]:
    """Forward FLOPs of one token, by part, in this job's sequences."""
    return flops.forward(job.model, flops.causal_context(job.seq_len))


def tensor_parallel(job: Job, machine: Machine) -> Number:
    """Seconds of a micro-batch's tensor-parallel collectives on the fullest stage."""
    return communication.tensor_parallel(job, machine)


def traffic(job: Job, machine: Machine) -> Number:
    """Bytes that elementwise operators move in one micro-batch on a CPU."""
    return cpu_kernels.traffic(job, machine)


def bubble_share(job: Job) -> Number:
    """Time that a pipeline's ends stand idle over the time that they work: (p-1)/m (arXiv 2104.04473 §2.2.1), divided
    by the slices of each rank where they are interleaved (§2.2.2)."""
    layout = job.layout
    whole = (layout.pp - 1) / (job.micro_batches * layout.virtual_stages)
    return whole * ZERO_BUBBLE if layout.pp_schedule == "zero-bubble" else whole


def optimizer(job: Job, machine: Machine) -> Number:
    """Seconds to update this rank's share of the parameters: bound by memory bandwidth. What the host updates is
    `lablib.plan.offloading`'s."""
    if job.offload in ("optimizer", "all") and not machine.is_cpu:
        return 0.0
    held = sum(size / members for size, members in communication.held(job))
    share = job.params.trainable / job.params.total
    host = 0.0 if machine.is_cpu else machine.efficiency.host_seconds * job.model.layers * job.stage_share
    moved = held * share * update_bytes(job.optimizer) / machine.bandwidth
    return moved + host + (_orthogonalising(job, machine) if job.optimizer == "muon" else 0.0)


def _orthogonalising(job: Job, machine: Machine) -> Number:
    """Seconds of Muon's Newton-Schulz iterations (kellerjordan.github.io/posts/muon): of an m × n matrix, m ≤ n, each takes
    XXᵀ, its square and a product with X, 4·m²·n + 2·m³ FLOPs in 16 bits. Matrices of one shape are dealt to the ranks that hold
    parts of them, as `lablib.train.rules.dealing` does; experts stay on the ranks that ZeRO put them on."""
    layout = job.layout
    ranks = layout.dp_replicate * job.shards * layout.tp
    flops: Number = 0.0
    for (rows, cols, part), copies in _shapes(job.model).items():
        low, high = sorted((rows, cols))
        each = NEWTON_SCHULZ * (4.0 * low**2 * high + 2.0 * low**3)
        there = copies * job.stage_share
        turns = there / (job.shards * layout.tp) if part == "experts" else ceil(there / ranks)
        flops = flops + turns * each
    share = job.params.trainable / job.params.total
    rate = machine.sustained("fp32" if job.precision == "fp32" else "bf16")
    return share * (flops / rate + communication.dealing(job, machine, ranks))


@lru_cache(maxsize=512)
def _shapes(model: ModelSpec) -> dict[tuple[int, int, str], int]:
    """(rows, columns, "experts" or nothing) → how many matrices inside the blocks are alike."""
    found: Counter[tuple[int, int, str]] = Counter()
    for matrix in anatomy.matrices(model):
        if matrix.part not in ("embedding", "head"):
            found[matrix.rows, matrix.cols, "experts" if matrix.part == "experts" else ""] += matrix.copies
    return dict(found)


def _stage(job: Job, machine: Machine) -> tuple[dict[str, Number], Number]:
    """Compute of one micro-batch on the stage that the others wait for, and how many layers it has.

    The last stage has the loss; where the layers do not divide evenly it has one layer fewer (Megatron counts embedding
    and loss as layers of such models).
    """
    if machine.is_cpu:
        return cpu_kernels.micro_batch(job, machine), job.model.layers * job.stage_share
    cost, layers, pp = kernels.cost(job, machine), job.model.layers, job.layout.pp
    first = ceil(layers / pp)
    last = choose(layers % pp == 0, first, first - 1)
    each = (cost.layers + cost.attention + cost.elementwise) / layers
    tail = cost.head + cost.loss
    ends = (pp == 1) | (last * each + tail >= first * each)
    held = choose(ends, last, first) / layers
    parts = {
        "compute": cost.layers * held + choose(ends, cost.head, 0.0),
        "attention": cost.attention * held,
        "elementwise": cost.elementwise * held + choose(ends, cost.loss, 0.0) + _accumulate(job, machine),
    }
    return {**parts, "launch": _launch(job, machine, sum(parts.values()), layers * held)}, layers * held


def _accumulate(job: Job, machine: Machine) -> Number:
    """Seconds of adding a micro-batch's gradients to the step's, where they are not sharded: read, add, write in fp32."""
    shared = job.shards if job.layout.zero == 3 else 1
    size = sum(held / choose(shared > 1, most(1, members), 1) for held, members in communication.held(job))
    trained = job.params.trainable / job.params.total
    return choose(job.micro_batches > 1, size * trained * 2 * job.engine.grads / machine.bandwidth, 0.0)


def _launch(job: Job, machine: Machine, work: Number, layers: Number) -> Number:
    """Seconds that the accelerator waits for the host: where launching a layer takes longer than computing it, and
    where mixtures of experts read their counts back."""
    again = 1 + REPEATS[job.recompute][0] / 3 - (0 if not job.adapters else 1 / 3)
    sparse = anatomy.layers(job.model).moe / job.model.layers
    each = job.engine.layer_seconds
    host = (machine.efficiency.layer_seconds if each is None else each) * layers * again
    return most(0.0, host - work) + job.engine.moe_seconds * sparse * layers * again
