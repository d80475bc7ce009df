"""The work of pretraining: steps, held-out evaluations and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lablib.plan import memory, step, work
from lablib.plan.goodput import CHECKPOINT_BYTES
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.resolve import model_of
from lablib.plan.work import Work
from lablib.specs import DoReMi, Pretrain

EVALUATIONS = 5
CHECKPOINTS = 10
"""What `eval_every=None` and `checkpoint_every=None` mean in the training loop."""


def job(recipe: Pretrain) -> Job:
    """One optimiser step of the recipe."""
    return Job(
        model=recipe.model,
        params=count(recipe.model),
        layout=recipe.parallelism,
        seq_len=recipe.seq_len,
        step_tokens=recipe.step_tokens,
        precision=recipe.precision,
        recompute=recipe.recompute,
        fused=recipe.compile,
        optimizer=recipe.optimizer.kind,
        cross_entropy=recipe.cross_entropy,
        offload=recipe.offload,
        reduce_dtype=recipe.reduce_dtype,
        expert_imbalance=recipe.expert_imbalance,
    )


def pretrain(recipe: Pretrain, machine: Machine) -> Work:
    """What a Pretrain recipe takes on a machine. Raises `LabError` where the precision's rate is unknown."""
    one = job(recipe)
    cut = recipe.cut
    parts = _mean([(count, step.seconds(replace(one, step_tokens=size), machine)) for count, size in cut.stages])
    evaluations = recipe.steps / recipe.eval_every if recipe.eval_every else min(EVALUATIONS, recipe.steps)
    saves = recipe.steps / recipe.checkpoint_every if recipe.checkpoint_every else min(CHECKPOINTS, recipe.steps)
    size = CHECKPOINT_BYTES * one.params.total
    once = {"evaluation": evaluations * work.forward_seconds(one, recipe.eval_tokens, machine)}
    if machine.is_cpu:
        once["checkpoints"] = saves * size / recipe.gpus / work.DISK
    return Work(
        steps=recipe.steps,
        step_parts=parts,
        memory=_memory(recipe, one, machine),
        params=one.params,
        flops=work.training_flops(one, cut.tokens),
        step_tokens=cut.tokens / cut.count if recipe.batch_ramp else recipe.step_tokens,
        once=once,
        precision=recipe.precision,
        jobs=(one,),
        checkpoint_bytes=size,
    )


def _mean(stages: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """The parts of the mean step, of (number of steps, parts of one) each: a growing batch's steps differ."""
    if len(stages) == 1:
        return stages[0][1]
    total = sum(count for count, _ in stages)
    return {name: sum(count * parts.get(name, 0.0) for count, parts in stages) / total for name in stages[-1][1]}


def doremi(recipe: DoReMi, machine: Machine, root: Path | None) -> Work:
    """What DoReMi's proxy takes: its own steps, and a forward pass of the reference in each.

    Raises `LabError` where the reference cannot be found in `root`.
    """
    proxy, other = recipe.proxy, model_of(recipe.reference, root)
    alone = pretrain(proxy, machine)
    one = replace(job(proxy), reference=True)
    size = count(other).total
    assumed = f"the reference ({size:,} parameters) is priced as large as the proxy ({one.params.total:,})"
    return replace(
        alone,
        step_parts=step.seconds(one, machine),
        memory=memory.peak(one, machine.efficiency, machine.capacity_gib),
        flops=work.training_flops(one, proxy.steps * proxy.step_tokens),
        once={name: seconds for name, seconds in alone.once.items() if name != "evaluation"},
        assumed=(*alone.assumed, assumed) if size != one.params.total else alone.assumed,
        jobs=(one,),
    )


def held(recipe: Pretrain, machine: Machine) -> Work:
    """The memory of a Pretrain recipe, without its time."""
    one = job(recipe)
    return Work(
        steps=recipe.steps,
        step_parts={},
        memory=_memory(recipe, one, machine),
        params=one.params,
        precision=recipe.precision,
        jobs=(one,),
    )


def _memory(recipe: Pretrain, one: Job, machine: Machine) -> memory.Memory:
    peak = memory.peak(one, machine.efficiency, machine.capacity_gib)
    return memory.copied(peak, one, on_host=machine.is_cpu) if recipe.async_checkpoints else peak
