"""`Work`: what a whole stage does, before it is priced: steps, FLOPs, seconds by cause, memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from lablib.plan import flops, step
from lablib.plan.flops import Flops
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import Memory
from lablib.plan.params import Params
from lablib.plan.ranges import Range

DISK = 5e8
"""Bytes/s to one process's storage: a conservative shared filesystem or a laptop's disk."""
NO_PARAMS, NO_FLOPS, CERTAIN = Params(), Flops(), Range.exactly(1.0)


@dataclass(frozen=True)
class Work:
    """A stage in numbers; every field but the first three has a neutral default."""

    steps: int
    step_parts: dict[str, float]
    """Seconds of one step by cause."""
    memory: Memory
    params: Params = NO_PARAMS
    flops: Flops = NO_FLOPS
    step_tokens: float = 0.0
    once: dict[str, float] = field(default_factory=dict)
    """Seconds spent once or seldom in the whole run, by cause."""
    spread: Range = CERTAIN
    """Uncertainty of the amount of work itself (unknown lengths), as factors of the middle."""
    precision: str = "bf16"
    assumed: tuple[str, ...] = ()
    """Assumptions that the user should see among the warnings."""
    jobs: tuple[Job, ...] = ()
    checkpoint_bytes: float = 0.0
    """One checkpoint of the whole job; what it costs in time is `lablib.plan.goodput`'s on accelerators."""

    @property
    def step_seconds(self) -> float:
        """Seconds of one step."""
        return sum(self.step_parts.values())

    @property
    def seconds(self) -> float:
        """Steady seconds of the run, start-up and goodput apart."""
        return self.steps * self.step_seconds + sum(self.once.values())


def training_flops(job: Job, tokens: float) -> Flops:
    """FLOPs of training on `tokens`: model FLOPs, and with recomputation what the hardware really does."""
    parts = step.forward(job)
    forward = sum(parts.values())
    trained = forward * (1 + flops.backward_ratio(job.adapters) + (1 if job.reference else 0))
    again = flops.recomputed(parts, job.recompute, job.model.gated)
    return Flops(
        forward=forward, per_token=trained, total=trained * tokens, hardware=(trained + again) * tokens, parts=parts
    )


def forward_seconds(job: Job, tokens: float, machine: Machine) -> float:
    """Seconds of a forward pass alone over `tokens`, all ranks together: a third of a training pass."""
    training = sum(step.micro_batch(job, machine).values()) + step.tensor_parallel(job, machine)
    micro_tokens = job.seq_len * job.layout.micro_batch_size * job.layout.dp
    return tokens / micro_tokens * training / 3
