"""Seconds that host memory costs: what is offloaded crosses the bus between accelerator and host each time it is used."""

from __future__ import annotations

from lablib.plan import communication
from lablib.plan.cpu_kernels import update_bytes
from lablib.plan.grid import Number, most
from lablib.plan.job import Job
from lablib.plan.machine import Machine

HOST_BYTES_S = 40e9
"""Host memory bandwidth that one accelerator's process gets in the optimiser's step: 320 GB/s of a two-socket server's
DDR4 over eight (DeepSpeed's CPU Adam is bound by it, arXiv 2101.06840 §5.1)."""


def seconds(job: Job, machine: Machine, compute: Number, layers: Number) -> Number:
    """Seconds of a step that offloading adds, of which `compute` hides what may run beside it.

    Optimiser states: gradients go down, the host updates, and 16-bit weights come up. Activations: each layer's input
    goes down in the forward pass and comes up in the backward pass, beside compute. Everything: the weights come up for
    both passes too (arXiv 2104.07857 §4).
    """
    if job.offload == "none" or machine.is_cpu:
        return 0.0
    bus = machine.host_bytes_s
    mine = sum(size / members for size, members in communication.held(job)) * job.params.trainable / job.params.total
    moved: Number = 0.0
    update: Number = 0.0
    if job.offload in ("optimizer", "all"):
        update = mine * ((4 + job.width) / bus + update_bytes(job.optimizer) / HOST_BYTES_S)
    if job.offload in ("activations", "all"):
        moved = moved + 2 * job.micro_batches * job.micro_tokens * job.model.hidden * job.width * layers / bus
    if job.offload == "all":
        whole = sum(size for size, _ in communication.held(job)) / job.shards
        moved = moved + 2 * job.micro_batches * whole * job.width / bus
    hidden = compute * machine.efficiency.overlap
    shown = most(0.0, moved - hidden)
    return update + shown + machine.efficiency.contention * (moved - shown)
