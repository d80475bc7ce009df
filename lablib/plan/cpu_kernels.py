"""Seconds of one micro-batch's compute on CPU cores, in the three causes that `lab calibrate` measures.

A CPU runs every operator to its end before the host starts the next, so the work of matmuls, of memory traffic and of
launching adds up. The constants come from this machine's own probe.
"""

from __future__ import annotations

from lablib.plan import activations, flops
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.plan.grid import Number
from lablib.plan.job import Job
from lablib.plan.machine import Machine

STEP_BYTES = 20
"""Of each parameter, whatever the rule: it is read and written, its gradient is read, and clipping reads and writes that."""
LOGIT_BYTES = 48
"""Reading and writing each logit in the loss: cast to fp32 (6), log-softmax in two passes (12), the gradient of the
likelihood (8), that of log-softmax in two passes (16), the cast back (6)."""


def update_bytes(optimizer: str) -> float:
    """Bytes that one update of a parameter moves: `STEP_BYTES`, and its states read and written (AdamW: 20 + 16 = 36)."""
    return STEP_BYTES + 2 * OPTIMIZER_BYTES[optimizer]


def micro_batch(job: Job, machine: Machine) -> dict[str, Number]:
    """Seconds by cause of one micro-batch's forward and backward pass on the fullest stage, without communication."""
    rate, wide = (
        machine.rate(job.precision),
        machine.rate("bf16" if job.precision in ("fp8", "mxfp8", "nvfp4") else job.precision),
    )
    efficiency, tokens = machine.efficiency, job.micro_tokens
    share = job.stage_share / job.layout.tp
    layers, head = _passes(job)
    parts = flops.forward(job.model, flops.causal_context(job.seq_len))
    slow = (parts.pop("scores", 0.0) + parts.pop("scan", 0.0)) * layers * tokens * share
    fast = sum(value * (head if part == "head" else layers) for part, value in parts.items()) * tokens * share
    penalty = efficiency.bf16_penalty if job.precision == "bf16" else 1.0
    return {
        "compute": fast / (rate * efficiency.matmul.mid) * penalty,
        "attention": slow / (wide * efficiency.matmul.mid * efficiency.attention) * penalty,
        "elementwise": traffic(job, machine) / machine.bandwidth,
        "launch": efficiency.layer_seconds * job.model.layers * job.stage_share * (layers / 3) / machine.speed,
    }


def _passes(job: Job) -> tuple[float, float]:
    """How many times the forward FLOPs are done: of the layers, and of the head, which is never repeated."""
    trained = 1 + flops.backward_ratio(job.adapters) + (1 if job.reference else 0)
    return trained + (1 if job.recompute == "full" else 0), trained


def traffic(job: Job, machine: Machine) -> Number:
    """Bytes that elementwise operators move in one micro-batch: a multiple of the activations that are kept, and the
    logits."""
    kept = activations.total(job.model, job.style).each(job.layout.tp) * job.stage_share
    again = 1.0 if job.recompute == "none" else 1.4
    loss = job.model.vocab * LOGIT_BYTES / job.layout.pp
    return job.micro_tokens * (kept * machine.efficiency.traffic * again + loss) * _passes(job)[1] / 3
