"""How long one optimiser step takes: a roofline of matmuls and memory traffic, plus communication that is not hidden."""

from __future__ import annotations

from math import log2

from lablib.plan import activations, flops
from lablib.plan.job import Job
from lablib.plan.machine import Machine, strides
from lablib.plan.memory import stage_params
from lablib.specs import LabError

ADAM_BYTES = 36
"""AdamW reads parameter, gradient and two moments and writes three of them back, and clipping reads and writes the
gradient: 9 fp32 numbers a parameter."""
LOGIT_BYTES = 48
"""Reading and writing each logit in the loss: cast to fp32 (6), log-softmax in two passes (12), the gradient of the
likelihood (8), that of log-softmax in two passes (16), the cast back (6)."""


def seconds(job: Job, machine: Machine) -> dict[str, float]:
    """Seconds of one step by cause. Raises `LabError` where the precision's rate is unknown."""
    compute = micro_batch(job, machine)
    busy = job.micro_batches * (sum(compute.values()) + tensor_parallel(job, machine))
    layout = job.layout
    bubble = busy * (layout.pp - 1) / job.micro_batches
    work = {name: value * job.micro_batches for name, value in compute.items()}
    return {
        **work,
        "tp": job.micro_batches * tensor_parallel(job, machine),
        "cp": job.micro_batches * context_parallel(job, machine),
        "ep": job.micro_batches * expert_parallel(job, machine),
        "pp": job.micro_batches * pipeline(job, machine),
        "dp": data_parallel(job, machine, hidden=busy * machine.efficiency.overlap),
        "bubble": bubble,
        "optimizer": optimizer(job, machine),
    }


def micro_batch(job: Job, machine: Machine) -> dict[str, float]:
    """Seconds of one micro-batch's forward and backward pass on the fullest stage, without communication."""
    rate, bf16 = _rates(job, machine)
    efficiency, tokens = machine.efficiency, job.micro_tokens
    share = job.stage_share / job.layout.tp
    passes = _passes(job)
    parts = {part: value * passes[part == "head"] * tokens * share for part, value in forward(job).items()}
    slow = parts.pop("scores", 0.0) + parts.pop("scan", 0.0)
    penalty = efficiency.bf16_penalty if job.precision == "bf16" else 1.0
    matmul = sum(parts.values()) / (rate * efficiency.matmul.mid) * penalty
    attention = slow / (bf16 * efficiency.matmul.mid * efficiency.attention) * penalty
    moved = traffic(job, machine) / machine.bandwidth
    launch = efficiency.layer_seconds * job.model.layers * job.stage_share * (passes[False] / 3)
    if machine.is_cpu:
        # Nothing runs beside the host: what it spends on each operator adds to the work.
        return {"compute": matmul, "attention": attention, "elementwise": moved, "launch": launch / machine.speed}
    return {"compute": matmul, "attention": attention, "elementwise": moved, "launch": max(0.0, launch - matmul - attention - moved)}  # fmt: skip


def forward(job: Job) -> dict[str, float]:
    """Forward FLOPs of one token, by part, in this job's sequences."""
    return flops.forward(job.model, flops.causal_context(job.seq_len))


def _passes(job: Job) -> dict[bool, float]:
    """How many times the forward FLOPs are done, by whether it is the head, which is never recomputed."""
    trained = 1 + flops.backward_ratio(job.adapters) + (1 if job.reference else 0)
    return {True: trained, False: trained + (1 if job.recompute == "full" else 0)}


def _rates(job: Job, machine: Machine) -> tuple[float, float]:
    rate = machine.matmul_rate(job.precision)
    bf16 = machine.matmul_rate("bf16" if job.precision == "fp8" else job.precision)
    if rate is None or bf16 is None:
        known = sorted({*machine.cluster.accelerator.peak_tflops, *machine.cluster.accelerator.measured_tflops})
        name = machine.cluster.accelerator.name
        raise LabError(f"precision={job.precision!r}: no rate is known for {name} (known: {', '.join(known) or 'none'}); choose another precision or run `lab calibrate`")  # fmt: skip
    return rate, bf16


def traffic(job: Job, machine: Machine) -> float:
    """Bytes that elementwise kernels move in one micro-batch: a multiple of the activations that are kept, and the
    logits."""
    kept = activations.total(job.model, job.style).each(job.layout.tp) * job.stage_share
    again = 1.0 if job.recompute == "none" else 1.4
    loss = job.model.vocab * LOGIT_BYTES / job.layout.pp
    passes = (_passes(job)[True]) / 3
    return job.micro_tokens * (kept * machine.efficiency.traffic * again + loss) * passes


def _ring(size: float, members: int, link: float, machine: Machine) -> float:
    """Seconds of an all-gather or reduce-scatter of `size` bytes: (n-1)/n of it crosses each link."""
    if members == 1:
        return 0.0
    return size * (members - 1) / members / link + machine.efficiency.latency_seconds * log2(members)


def tensor_parallel(job: Job, machine: Machine) -> float:
    """Two all-reduces a layer forward and two backward (arXiv 1909.08053 §3), each twice a ring pass; not hidden."""
    tp = job.layout.tp
    size = job.micro_tokens * job.model.hidden * job.width
    count = 4 * job.model.layers * job.stage_share * (1.5 if job.recompute == "full" else 1.0)
    return count * 2 * _ring(size, tp, machine.link(tp, 1), machine) if tp > 1 else 0.0


def context_parallel(job: Job, machine: Machine) -> float:
    """Keys and values gathered over the group in each layer, forward and again backward with their gradients."""
    cp, model = job.layout.cp, job.model
    if cp == 1:
        return 0.0
    size = 2 * job.micro_tokens * cp * model.kv_heads * model.head_dim * job.width / job.layout.tp
    once = _ring(size, cp, machine.link(cp, strides(job.layout)["cp"]), machine)
    return 3 * once * job.model.layers * job.stage_share


def expert_parallel(job: Job, machine: Machine) -> float:
    """All-to-all of each token's `top_k` copies to the experts and back, forward and backward (arXiv 2006.16668)."""
    ep, moe = job.layout.ep, job.model.moe
    if ep == 1 or moe is None:
        return 0.0
    size = job.micro_tokens * moe.top_k * job.model.hidden * job.width
    moe_layers = (job.model.layers - moe.dense_layers) * job.stage_share
    return 4 * _ring(size, ep, machine.link(ep, 1), machine) * moe_layers


def pipeline(job: Job, machine: Machine) -> float:
    """One micro-batch's activations sent forward and gradients sent back between stages."""
    pp = job.layout.pp
    if pp == 1:
        return 0.0
    size = job.micro_tokens * job.model.hidden * job.width / job.layout.tp
    return 2 * (size / machine.link(pp, strides(job.layout)["pp"]) + machine.efficiency.latency_seconds)


def data_parallel(job: Job, machine: Machine, hidden: float) -> float:
    """Seconds of FSDP's and the replicas' collectives that `hidden` seconds of compute do not cover.

    Each micro-batch gathers the weights for the forward and the backward pass and scatters fp32 gradients (FSDP2,
    arXiv 2304.11277 §3.2); replicas all-reduce their shard once a step. At least the first layer's gather shows.
    """
    layout, place, ep = job.layout, strides(job.layout), job.layout.ep
    size = stage_params(job, first=True, last=layout.pp == 1)
    trained = job.params.trainable / job.params.total
    experts = job.params.parts.get("experts", 0) * job.stage_share / layout.tp if ep > 1 else 0.0
    per_byte = _gathered(size - experts, job.shards, place["shard"], machine)
    # Expert parallelism keeps each expert on its ranks: only the remaining data-parallel ranks gather it.
    per_byte += _gathered(experts / ep, max(1, job.shards // ep), place["shard"] * ep, machine)
    sharded = job.micro_batches * per_byte * (2 * job.width + trained * 4)
    between = machine.link(layout.dp_replicate, place["replicate"])
    replicated = 2 * _ring(size / job.shards * trained * 4, layout.dp_replicate, between, machine)
    whole = sharded + replicated
    first = whole / max(1.0, job.model.layers * job.stage_share) / job.micro_batches
    return max(first, whole - hidden) if whole else 0.0


def _gathered(params: float, members: int, stride: int, machine: Machine) -> float:
    """Seconds to gather one byte of each of `params` parameters over the group."""
    return _ring(params, members, machine.link(members, stride), machine)


def optimizer(job: Job, machine: Machine) -> float:
    """Seconds to update this rank's shard, bound by memory bandwidth."""
    size = stage_params(job, first=True, last=job.layout.pp == 1) / job.shards
    return size * job.params.trainable / job.params.total * ADAM_BYTES / machine.bandwidth
