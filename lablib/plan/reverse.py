"""`plan_for`: from a budget in dollars, GPU-hours or days to the sizes, data, layouts and GPUs that it can pay for.

>>> from lablib import Cluster, plan_for
>>> options = plan_for("$50k", days=30, cluster=Cluster(accelerator="h100-sxm", nodes=16))
>>> options.best.recipe                     # what `lab submit` takes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lablib.plan import efficiency as constants
from lablib.plan import goodput, scaling
from lablib.plan.efficiency import Efficiency
from lablib.plan.estimate import estimate
from lablib.plan.family import shapes
from lablib.plan.fastest import Fastest, Raced, numbers, race
from lablib.plan.frontier import Frontier, Limits, Option, nondominated
from lablib.plan.goodput import CHECKPOINT_BYTES
from lablib.plan.laws import EPOCH, Law
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.sweep import Settings
from lablib.specs import Balance, Cluster, LabError, ModelSpec, Pretrain, catalog
from lablib.specs.units import parse_count, show_count, show_dollars

SPEND = (1.0, 0.5, 0.25)
"""Shares of the budget that are tried: what less money buys belongs to the choice."""
LEAST = 1.0
"""Fewest tokens a parameter that a plan may have: no law was fitted on fewer."""
BATCHES = (65_536, 16_777_216)
"""Smallest and largest batch, tokens: Llama 3 405B ends at 16M (arXiv 2407.21783 §3.4.1)."""
GUESS = 0.35
"""MFU from which the batch is chosen before any layout is: the batch goes with about its root."""
DATA = "15T"
"""Unique tokens of the largest open corpus in English (FineWeb, arXiv 2406.17557); a law holds for tokens seen once."""
RECOMPUTE = ("none", "selective", "full")
TRIES = 4
"""Corrections of a plan's tokens until the plan proper, evaluations and all, keeps within its budget."""


@dataclass(frozen=True)
class Search:
    """What all sizes have in common."""

    cluster: Cluster
    limits: Limits
    efficiency: Efficiency
    precision: str
    seq_len: int
    max_tokens: int
    batch_tokens: int | None
    law: Law


@dataclass(frozen=True)
class Draft:
    """One way to spend the budget, by arithmetic alone."""

    run: Size
    layout: Fastest
    tokens: float
    loss: float
    gpu_hours: float
    days: float


def plan_for(
    budget: str | float | None = None,
    *,
    cluster: Cluster,
    gpu_hours: float | None = None,
    days: str | float | None = None,
    seq_len: int | str = 4096,
    precision: str = "bf16",
    law: Law = EPOCH,
    sizes: Sequence[ModelSpec | str] | None = None,
    batch_tokens: int | str | None = None,
    max_tokens: int | str = DATA,
    efficiency: Efficiency | None = None,
) -> Frontier:
    """What the budget can train on up to all of `cluster`: every plan that no other beats in loss, money, days and size.

    `budget` is dollars ("$50k") at the cluster's price, else the catalogue's median; `days` counts from start to end,
    failures included. Both hold for the middle of a plan's band. `sizes` are the models to choose among (default: a
    ladder of 26 from 100M to 400B); `max_tokens` is how much data there is. Raises `LabError` where no budget is given,
    where a price is needed and unknown, and where nothing is possible, with the nearest that would be.
    """
    given = Search(
        cluster=cluster,
        limits=Limits.of(budget, gpu_hours, days, cluster),
        efficiency=efficiency or constants.of(cluster),
        precision=precision,
        seq_len=_count("seq_len", seq_len),
        max_tokens=_count("max_tokens", max_tokens),
        batch_tokens=None if batch_tokens is None else _count("batch_tokens", batch_tokens),
        law=law,
    )
    runs = [Size(model, given) for model in _models(sizes, given.seq_len)]
    drafts = [draft for run in runs for draft in run.drafts()]
    if not drafts:
        raise _impossible(runs, given)
    chosen = nondominated(np.array([[d.loss, d.gpu_hours, d.days, d.run.parameters] for d in drafts]))
    made = [option for place in chosen if (option := settled(drafts[place], given))]
    kept = nondominated(np.array([[o.loss, o.gpu_hours.mid, o.days.mid, o.parameters] for o in made]))
    return Frontier(
        options=tuple(made[place] for place in kept), limits=given.limits, basis=f"{law.name}: {law.data}; {law.source}"
    )


def _count(name: str, value: int | str) -> int:
    try:
        return parse_count(value)
    except ValueError as error:
        raise LabError(f"{name}={value!r} {error}") from None


def _models(sizes: Sequence[ModelSpec | str] | None, seq_len: int) -> list[ModelSpec]:
    given = shapes(max_seq_len=seq_len) if sizes is None else sizes
    models = [catalog.models[one] if isinstance(one, str) else one for one in given]
    if not models:
        raise LabError("sizes=[]: give at least one model, or leave it out for the ladder from 100M to 400B")
    return [model.reaching(seq_len) for model in models]


class Size:
    """One model on every number of accelerators, each in its fastest layout."""

    def __init__(self, model: ModelSpec, given: Search) -> None:
        """Nothing is computed before it is asked for."""
        self.model, self.given = model, given
        self.parameters = count(model).total

    @cached_property
    def batch_tokens(self) -> int:
        """The law's batch for as much data as the budget may buy, as a power of two."""
        given = self.given
        if given.batch_tokens:
            return given.batch_tokens
        peak = given.cluster.accelerator.peak(given.precision) or Machine(given.cluster, given.efficiency).rate(
            given.precision
        )
        hours = min(given.limits.gpu_hours, given.limits.wall_hours * given.cluster.gpus)
        tokens = min(given.max_tokens, hours * 3600 * peak * GUESS / (6 * self.parameters))
        return int(
            np.clip(2.0 ** round(np.log2(scaling.batch_tokens(tokens))), max(BATCHES[0], given.seq_len), BATCHES[1])
        )

    @cached_property
    def raced(self) -> Raced:
        """The fastest layouts."""
        given = self.given
        compiled = not self.model.traits.recurrent  # RWKV is not compiled (`lablib.train.able`)
        settings = [Settings(precision=given.precision, recompute=name, compile=compiled) for name in RECOMPUTE]
        machine = Machine(given.cluster, given.efficiency)
        return race(self.model, machine, numbers(given.cluster), settings, self.batch_tokens, given.seq_len)

    def stretch(self, gpus: int) -> float:
        """Wall time over time in steps: failures, checkpoints and slow days, as `estimate` counts them."""
        if self.given.cluster.accelerator.kind == "cpu":
            return 1 / self.given.efficiency.goodput.mid
        save = goodput.save_seconds(CHECKPOINT_BYTES * self.parameters, gpus)
        return float(goodput.overhead(gpus, save, goodput.FAILURES.mid, goodput.RESTART.mid, goodput.SLOW.mid))

    def hours(self, layout: Fastest, tokens: float) -> float:
        """Wall hours of training on so many tokens."""
        steady = tokens / layout.tokens_per_second * self.stretch(layout.gpus)
        return (steady + self.given.efficiency.startup_seconds.mid) / 3600

    def tokens(self, layout: Fastest, hours: float) -> float:
        """Tokens that so many wall hours leave time for."""
        useful = (hours * 3600 - self.given.efficiency.startup_seconds.mid) / self.stretch(layout.gpus)
        return min(useful * layout.tokens_per_second, float(self.given.max_tokens))

    def drafts(self) -> list[Draft]:
        """Every number of accelerators on every share of the budget that sees enough tokens."""
        made, law = [], self.given.law
        for layout in self.raced.fastest:
            for share in SPEND:
                tokens = self.tokens(layout, self.given.limits.on(layout.gpus, share))
                if tokens < max(LEAST * self.parameters, layout.step_tokens):
                    continue
                hours = self.hours(layout, tokens)
                loss = float(law.loss(self.parameters, tokens))
                made.append(Draft(self, layout, tokens, loss, hours * layout.gpus, hours / 24))
        return made


def settled(draft: Draft, given: Search) -> Option | None:
    """The plan proper behind a draft, its tokens lowered until the whole plan keeps within the budget; None where that
    leaves too few."""
    tokens, limits = draft.tokens, given.limits
    for _ in range(TRIES):
        if tokens < max(LEAST * draft.run.parameters, draft.layout.step_tokens):
            return None
        recipe = _recipe(draft, given, tokens)
        plan = estimate(recipe, given.cluster, given.efficiency)
        over = max(plan.gpu_hours.mid / limits.gpu_hours, plan.days.mid * 24 / limits.wall_hours)
        if over <= 1:
            seen = recipe.steps * recipe.step_tokens
            return Option(
                parameters=draft.run.parameters,
                tokens=seen,
                loss=float(given.law.loss(draft.run.parameters, seen)),
                outside=given.law.outside(draft.run.parameters, seen),
                gpus=recipe.gpus,
                gpu_hours=plan.gpu_hours,
                days=plan.days,
                dollars=plan.dollars,
                tokens_per_second_per_gpu=plan.tokens_per_second_per_gpu or 0.0,
                mfu=plan.mfu,
                peak_gib=plan.memory.peak_gib,
                recipe=recipe,
            )
        tokens = tokens / over * 0.999 - draft.layout.step_tokens
    return None


def _recipe(draft: Draft, given: Search, tokens: float) -> Pretrain:
    layout = draft.layout
    planned = Pretrain(
        name="planned",
        model=draft.run.model,
        tokens=max(layout.step_tokens, int(tokens // layout.step_tokens * layout.step_tokens)),
        seq_len=given.seq_len,
        batch_tokens=layout.step_tokens,
        parallelism=layout.parallelism,
        precision=given.precision,
        recompute=layout.settings.recompute,
        compile=layout.settings.compile,
        document_mask=not draft.run.model.recurrent,
        balance=Balance.usual(draft.run.model),
    )
    return scaling.suggested(planned, batch=False)


def _impossible(runs: Sequence[Size], given: Search) -> LabError:
    """Why nothing is possible, with the nearest plan that would be."""
    able = [(run, layout) for run in runs for layout in run.raced.fastest]
    if not able:
        small = min(runs, key=lambda run: run.raced.least_gib)
        if small.raced.least_gib == float("inf"):
            return LabError(
                f"batch_tokens={small.batch_tokens} and seq_len={given.seq_len} leave no layout that divides any of the models; give another batch_tokens"
            )
        return LabError(
            f"no model fits on up to {given.cluster.gpus} × {given.cluster.accelerator.name}; the nearest, {show_count(small.parameters)} "
            f"parameters, needs {small.raced.least_gib:.1f} of {given.cluster.accelerator.memory_gib:.4g} GiB. Take more accelerators or a shorter seq_len"
        )
    needs = [(run, layout, run.hours(layout, max(LEAST * run.parameters, layout.step_tokens))) for run, layout in able]
    in_time = [need for need in needs if need[2] <= given.limits.wall_hours] or [min(needs, key=lambda need: need[2])]
    run, layout, hours = min(in_time, key=lambda need: need[2] * need[1].gpus)
    spent = hours * layout.gpus
    price = given.limits.usd_per_gpu_hour
    cost = f"{show_dollars(spent * price)} ({spent:,.3g} GPU-hours)" if price else f"{spent:,.3g} GPU-hours"
    return LabError(
        f"{given.limits} is too little: the nearest plan is {show_count(run.parameters)} parameters on {LEAST:g} token each, which takes "
        f"{cost} and {hours / 24:.3g} days on {layout.gpus} × {given.cluster.accelerator.name}"
    )
