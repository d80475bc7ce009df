"""`estimate(recipe, cluster)`: what a recipe takes, before anything runs. Pure arithmetic, well under a millisecond."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from lablib.plan import efficiency as constants
from lablib.plan import goodput, ledger, midtraining, money, reading, render, resolve, scaling, verdict
from lablib.plan.efficiency import Efficiency
from lablib.plan.flops import Flops
from lablib.plan.goodput import Goodput
from lablib.plan.machine import Machine
from lablib.plan.memory import Memory
from lablib.plan.others import calibrate, evaluate, export, merge, prepare
from lablib.plan.params import Params
from lablib.plan.posttraining import preference, reward, sft
from lablib.plan.pretraining import CHECKPOINTS, doremi, held, pretrain
from lablib.plan.ranges import Range
from lablib.plan.reading import Reading
from lablib.plan.reinforcing import grpo, ppo
from lablib.plan.synthesizing import synthesize
from lablib.plan.work import Work
from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    STAGES,
    Calibrate,
    Cluster,
    DoReMi,
    Evaluate,
    Export,
    LabError,
    Merge,
    Preference,
    Prepare,
    Pretrain,
    Recipe,
    Reward,
    Spec,
    Synthesize,
)

if TYPE_CHECKING:
    from lablib.plan.chain import ChainEstimate

RARE = 0.02
"""Share of the time that a better checkpoint interval must save to be worth a word."""


class Estimate(Spec):
    """A plan: numbers with their bands, a verdict, and the account of how each came about."""

    stage: str
    name: str
    gpus: int
    accelerator: str
    params: Params
    flops: Flops
    memory: Memory
    steps: int
    step_seconds: float
    step_parts: dict[str, float]
    """Seconds of one step by cause; they add up to `step_seconds`."""
    tokens_per_second_per_gpu: float | None
    mfu: float | None
    """Model FLOPs over the data-sheet peak; None where nobody published a peak."""
    goodput: Goodput | None = None
    """Useful share of wall time and what takes the rest; None on CPUs, where the constants have one share for all."""
    gpu_hours: Range
    days: Range
    """Wall time from the job's start to its end."""
    dollars: Range | None
    """None where no price is known."""
    energy_kwh: Range | None
    co2e_kg: Range | None
    reads: tuple[Reading, ...] = ()
    """What a pretraining reads of each domain, largest share first; empty where its mixture is not known yet."""
    basis: str = ""
    """What the time rests on: the calibration of this machine with its residual, else where the constants were fitted."""
    fits: bool
    warnings: tuple[str, ...]
    """Where it does not fit, first the reasons with their remedies; then cautions and assumptions."""
    ledger: ledger.Account

    def explain(self) -> str:
        """Every number with its formula, inputs and source, as text."""
        return ledger.text(self.ledger)

    def __str__(self) -> str:
        return render.text(self)

    def _repr_html_(self) -> str:
        return render.html(self)


@overload
def estimate(
    recipe: Recipe, cluster: Cluster, efficiency: Efficiency | None = None, root: Path | None = None
) -> Estimate: ...


@overload
def estimate(
    recipe: Sequence[Recipe], cluster: Cluster, efficiency: Efficiency | None = None, root: Path | None = None
) -> ChainEstimate: ...


def estimate(
    recipe: Recipe | Sequence[Recipe], cluster: Cluster, efficiency: Efficiency | None = None, root: Path | None = None
) -> Estimate | ChainEstimate:
    """What `recipe` takes on `cluster`; of a sequence of recipes, what the whole chain takes and each stage's share.

    `efficiency` overrides the constants (defaults by kind of accelerator, this machine's own where calibrated); `root`
    is the folder of runs that references are looked up in. Raises `LabError` for a precision without a known rate, a
    reference to a run that is not there, and for a plan that would exceed the hardware's peak.
    """
    if not isinstance(recipe, Recipe):
        from lablib.plan.chain import estimate_chain

        return estimate_chain(recipe, cluster, efficiency, root)
    shares = efficiency or constants.of(cluster)
    again = partial(_planned, cluster=cluster, efficiency=shares, root=root)
    work, machine = again(recipe)
    mfu = _mfu(work, recipe, machine)
    reasons = verdict.obstacles(recipe, work, machine, partial(_held, cluster=cluster, efficiency=shares, root=root))
    useful = _goodput(work, recipe, machine)
    reads = reading.readings(recipe, root)
    hours = _hours(work, machine, useful)
    gpu_hours, energy = hours.times(recipe.gpus), money.energy(hours.times(recipe.gpus), cluster)
    price = money.price(cluster)
    unpriced = (
        () if price else (f"no price is known for {cluster.accelerator.name}; give the cluster price_per_gpu_hour",)
    )
    return Estimate(
        stage=recipe.stage,
        name=recipe.name,
        gpus=recipe.gpus,
        accelerator=cluster.accelerator.name,
        params=work.params,
        flops=work.flops,
        memory=work.memory,
        steps=work.steps,
        step_seconds=work.step_seconds,
        step_parts={name: value for name, value in work.step_parts.items() if value},
        tokens_per_second_per_gpu=work.step_tokens / work.step_seconds / recipe.gpus if work.step_tokens else None,
        mfu=mfu,
        goodput=useful,
        gpu_hours=gpu_hours,
        days=hours.times(1 / 24),
        dollars=gpu_hours.joined(price[0]) if price else None,
        energy_kwh=energy,
        co2e_kg=money.carbon(energy),
        reads=reads,
        basis=machine.efficiency.basis,
        fits=not reasons,
        warnings=(
            *reasons,
            *verdict.cautions(recipe, work, machine, mfu, again),
            *reading.cautions(reads, reading.breach(recipe, root)),
            *midtraining.cautions(recipe, reads),
            *resolve.cautions(recipe),
            *scaling.cautions(recipe),
            *_rarely(recipe, work, useful),
            *unpriced,
        ),
        ledger=ledger.account(work, machine, hours, useful, price, mfu),
    )


def _planned(recipe: Recipe, cluster: Cluster, efficiency: Efficiency, root: Path | None) -> tuple[Work, Machine]:
    machine = Machine(cluster, efficiency, recipe.threads, recipe.gpus)
    return _work(recipe, machine, root), machine


def _held(recipe: Recipe, cluster: Cluster, efficiency: Efficiency, root: Path | None) -> tuple[Work, Machine]:
    """What a recipe takes, as far as its verdict needs it: of a pretraining, which is tried in many forms, memory alone."""
    if not isinstance(recipe, Pretrain):
        return _planned(recipe, cluster, efficiency, root)
    machine = Machine(cluster, efficiency, recipe.threads, recipe.gpus)
    return held(recipe, machine), machine


def _work(recipe: Recipe, machine: Machine, root: Path | None) -> Work:
    match recipe:
        case Pretrain():
            return pretrain(recipe, machine)
        case SFT():
            return sft(recipe, machine, root)
        case Preference():
            return preference(recipe, machine, root)
        case Reward():
            return reward(recipe, machine, root)
        case GRPO():
            return grpo(recipe, machine, root)
        case PPO():
            return ppo(recipe, machine, root)
        case Prepare():
            return prepare(recipe, machine, root)
        case Evaluate():
            return evaluate(recipe, machine, root)
        case Export():
            return export(recipe, machine, root)
        case Merge():
            return merge(recipe, machine, root)
        case DoReMi():
            return doremi(recipe, machine, root)
        case Synthesize():
            return synthesize(recipe, machine, root)
        case Calibrate():
            return calibrate(machine)
    raise LabError(f"stage={recipe.stage!r} has no plan yet; those that have: {', '.join(STAGES)}")


def _mfu(work: Work, recipe: Recipe, machine: Machine) -> float | None:
    """Model FLOPs utilisation (arXiv 2204.02311 App. B). Above 1 is an error in the inputs: no hardware does that."""
    peak = machine.cluster.accelerator.peak(work.precision)
    if peak is None or not work.flops.total:
        return None
    mfu = work.flops.total / work.steps / (work.step_seconds * recipe.gpus * peak)
    if mfu > 1:
        name = machine.cluster.accelerator.name
        raise LabError(f"the plan needs {mfu:.0%} of {name}'s {work.precision} peak, which cannot be; check the accelerator's measured and peak rates")  # fmt: skip
    return mfu


def _goodput(work: Work, recipe: Recipe, machine: Machine) -> Goodput | None:
    """Failures, checkpoints, evaluation and slow days of a run on accelerators."""
    if machine.is_cpu:
        return None
    useful = max(_useful(work), 1e-9)
    every = getattr(recipe, "checkpoint_every", None)
    return goodput.of(
        recipe.gpus,
        work.checkpoint_bytes or goodput.CHECKPOINT_BYTES * work.params.trainable,
        every * work.step_seconds if every else None,
        asynchronous=getattr(recipe, "async_checkpoints", False),
        evaluation=work.once.get("evaluation", 0.0) / useful,
        longest=useful,
    )


def _useful(work: Work) -> float:
    return work.seconds - work.once.get("evaluation", 0.0)


def _rarely(recipe: Recipe, work: Work, useful: Goodput | None) -> Iterator[str]:
    """Where checkpoints are too rare or too frequent for so many accelerators, with the better interval."""
    if useful is None or not work.checkpoint_bytes:
        return
    best = max(1, round(useful.optimum_seconds / work.step_seconds))
    if getattr(recipe, "checkpoint_every", None) is None:
        cost = goodput.interruption(recipe.gpus, useful.save_seconds, _useful(work) / min(CHECKPOINTS, work.steps))
        if cost > goodput.interruption(recipe.gpus, useful.save_seconds, useful.optimum_seconds) + RARE:
            yield f"set checkpoint_every={min(best, work.steps)}: the plan assumes it; left open the run saves ten times in all, and {goodput.cost(cost)}"
    elif useful.parts["lost work"] + useful.parts["checkpoints"] > RARE + goodput.interruption(
        recipe.gpus, useful.save_seconds, useful.optimum_seconds
    ):
        lost = useful.parts["lost work"] + useful.parts["checkpoints"]
        yield f"checkpoints and repeated work take {lost:.0%} of the time; checkpoint_every={best} is the optimum"


def _hours(work: Work, machine: Machine, useful: Goodput | None) -> Range:
    """Wall hours: start-up, and steady time over goodput. On accelerators the amount of work and goodput are independent,
    and goodput's band, fitted on whole runs, has the step model's error in it; on a CPU, whose runs last minutes, the
    bounds of the matmul rate, the work and the constants' goodput multiply."""
    efficiency = machine.efficiency
    if useful is None:
        rates = efficiency.matmul
        speed = (
            Range(low=rates.mid / rates.high, mid=1.0, high=rates.mid / rates.low) if work.jobs else Range.exactly(1.0)
        )
        steady = work.spread.times(speed).times(efficiency.goodput.inverse()).times(work.seconds)
    else:
        steady = work.spread.joined(useful.effective.inverse()).times(_useful(work))
    return steady.plus(efficiency.startup_seconds).times(1 / 3600)
