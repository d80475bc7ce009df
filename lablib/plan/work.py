"""`Work`: what a whole stage does, before it is priced: steps, FLOPs, seconds by cause, memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lablib.plan import anatomy, communication, flops, step
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
    longest: int = 0
    """Tokens of the longest sequence that the memory holds, where the recipe alone does not say it."""
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
    """Seconds of a forward pass alone over `tokens`, all ranks together: whatever trains, and is recomputed, in training."""
    micro_tokens = job.seq_len * job.layout.micro_batch_size * job.layout.dp
    plain = replace(job, recompute="none", reference=False)
    # A reference model runs forward once: what it adds to a step's kernels is a forward pass.
    alone, beside = (step.micro_batch(replace(plain, reference=there), machine) for there in (False, True))
    kernels = {name: float(beside[name] - alone[name]) for name in alone}
    return tokens / micro_tokens * (_computing(plain, kernels, machine) + _collectives(plain, kernels, machine))


def _computing(job: Job, kernels: dict[str, float], machine: Machine) -> float:
    """Seconds of a micro-batch's forward kernels, of which the host launches a third of what it does for training."""
    if machine.is_cpu:
        return sum(kernels.values())
    engine, layers = job.engine, job.model.layers * job.stage_share
    each = machine.efficiency.layer_seconds if engine.layer_seconds is None else engine.layer_seconds
    waiting = engine.moe_seconds * anatomy.layers(job.model).moe / job.model.layers
    working = sum(seconds for name, seconds in kernels.items() if name != "launch")
    return float(max(working, each * layers / 3) + waiting * layers / 3)


def _collectives(job: Job, kernels: dict[str, float], machine: Machine) -> float:
    """Seconds of a micro-batch's forward collectives: a half of tensor-parallel all-reduces, experts' all-to-all and
    stages' hand-overs, whose other half are gradients, and a third of the rings of keys and values, which go twice."""
    layers = job.model.layers * job.stage_share
    both = (
        communication.tensor_parallel(job, machine, layers),
        communication.expert_parallel(job, machine, layers),
        communication.pipeline(job, machine),
    )
    rings = communication.context_parallel(job, machine, 3 * kernels["attention"], layers)
    return float(sum(both) / 2 + rings / 3)
