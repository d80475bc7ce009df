"""`submit`: price a recipe, write its run folder, start it as processes of its own and return at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import compress, groupby
from pathlib import Path
from typing import Any

from cluster import far, here, preflight, snapshot, staging
from cluster.slurm import query, sbatch
from lablib.plan import Estimate, estimate, forecast
from lablib.posttrain.later import refuse_planned_only
from lablib.runs import Run, RunState, orders, provenance
from lablib.specs import Cluster, Component, DoReMi, LabError, Pretrain, Profile, Recipe, Shared
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import runs_root
from lablib.specs.units import parse_dollars
from lablib.train import able


def submit(
    recipe: Recipe,
    profile: str | Profile = LOCAL,
    after: Run | Iterable[Run] | None = None,
    root: Path | None = None,
    max_dollars: str | float | None = None,
    max_gpu_hours: float | None = None,
    components: Sequence[Component] = (),
    report: bool = False,
) -> Run:
    """Start a recipe and return its run; the job waits for `after` and for every run that its references name.

    `profile` says where; `root` is the folder of runs (the profile's, $LAB_RUNS or ./runs). The run saves and stops when
    it has spent `max_dollars` or `max_gpu_hours`. A recipe of several `tasks` starts as many runs, on Slurm one array, with an
    equal part of those each; the first one is returned, and has the artefacts. `components` are servers that live as long as the job; with `report`
    the job writes one about itself and the runs that it needed. Raises `LabError` for a profile that does not exist, for
    a recipe that cannot work there by its plan, and for a reference to a run that is not in `root`.
    """
    return submit_all([recipe], profile, after, root, max_dollars, max_gpu_hours, 0, components, report)[0]


def submit_all(
    recipes: Sequence[Recipe],
    profile: str | Profile = LOCAL,
    after: Run | Iterable[Run] | None = None,
    root: Path | None = None,
    max_dollars: str | float | None = None,
    max_gpu_hours: float | None = None,
    at_once: int = 0,
    components: Sequence[Component] = (),
    report: bool = False,
) -> list[Run]:
    """`submit` for seeds, sweeps and ladders: on Slurm as arrays, split where they are too large, elsewhere one by one;
    `at_once` limits how many run at a time (0: as many as there is room for). The budgets are each recipe's own; so is the
    run that is returned for it, the first where its `tasks` are several.

    Nothing is started unless all of them can be. Raises `LabError` as `submit` does.
    """
    where = Profile.load(profile) if isinstance(profile, str) else profile
    if at_once < 0:
        raise LabError(f"at_once={at_once} must be 0 (all) or the number of runs that may work at a time")
    if where.ssh:
        names = [run.id for run in _given(after)]
        limits = {"max_dollars": max_dollars, "max_gpu_hours": max_gpu_hours, "at_once": at_once, "report": report}
        return far.submit(recipes, where, names, **limits, components=[json.loads(one.to_json()) for one in components])
    root = (root or where.root or runs_root()).absolute()
    preflight.check_accelerator(where)
    dollars = None if max_dollars is None else parse_dollars(max_dollars)
    cluster = priced_on(where)
    where = _with_price(where, cluster)
    if dollars is not None and where.price_per_gpu_hour is None:
        raise LabError(f"max_dollars={dollars}: profile {where.name} has no price_per_gpu_hour to count by; give max_gpu_hours, or the profile a price")  # fmt: skip
    plans = []
    shares = [_shares(recipe) for recipe in recipes]
    for recipe, parts in ((one, len(share)) for share in shares for one in share):
        _check_able(recipe)
        waits = _predecessors(recipe, after, root)
        plan = None if cluster is None else estimate(recipe, cluster, root=root)
        preflight.check(recipe, where, plan, root, sum(one.nodes for one in components))
        plans.append((recipe, waits, plan, _budgets(dollars, max_gpu_hours, parts)))
    if where.scheduler == "slurm":
        staging.stage(recipes)
    shared = orders.Order(profile=where, code=snapshot.take(root), components=tuple(components), report=report)
    runs: list[Run] = []
    turns = (at_once or preflight.bears(recipes)) if where.scheduler == "local" else 0
    try:
        for recipe, waits, plan, budgets in plans:
            behind = runs[-turns].id if turns and len(runs) >= turns else ""
            order = shared.replace(after=waits, behind=behind, **budgets)
            runs.append(_create(recipe, root, cluster, plan, order))
        for block in _alike(runs):
            start(block, 0, at_once)
    except BaseException:
        for run in runs:
            if run.held_by is None:  # what was never queued is no run
                shutil.rmtree(run.path)
        raise
    return list(compress(runs, (number == 0 for share in shares for number in range(len(share)))))


def _shares(recipe: Recipe) -> Sequence[Recipe]:
    """The recipes of all runs that do the work of this one."""
    return recipe.shares() if isinstance(recipe, Shared) else [recipe]


def _check_able(recipe: Recipe) -> None:
    refuse_planned_only(recipe)
    if isinstance(recipe, Pretrain):
        able.check(recipe)
    if isinstance(recipe, DoReMi):
        able.check(recipe.proxy)


def _budgets(dollars: float | None, hours: float | None, parts: int) -> dict[str, float | None]:
    """What one of so many runs may spend of a recipe's budgets."""
    given = {"max_dollars": dollars, "max_gpu_hours": hours}
    return {name: None if limit is None else limit / parts for name, limit in given.items()}


def _create(recipe: Recipe, root: Path, cluster: Cluster | None, plan: Estimate | None, order: orders.Order) -> Run:
    return Run.create(
        recipe,
        root,
        cluster,
        order=json.loads(order.to_json()),
        code={**provenance.code(), "snapshot": order.code},
        **_registered(recipe, plan, root),
    )


def _with_price(profile: Profile, cluster: Cluster | None) -> Profile:
    """The profile with the price that the plan is reckoned at, so that budgets count by the same."""
    if cluster is None or profile.price_per_gpu_hour is not None or cluster.price_per_gpu_hour is None:
        return profile
    return profile.replace(price_per_gpu_hour=cluster.price_per_gpu_hour)


def _alike(runs: list[Run]) -> list[list[Run]]:
    """Runs in a row that one array can hold: of equal size and with the same predecessors."""
    keyed = groupby(runs, key=lambda run: (run.recipe.gpus, run.recipe.threads, run.order.after))
    return [list(block) for _, block in keyed]


def priced_on(profile: Profile) -> Cluster | None:
    """What the planner prices on; None where nobody has measured it, nor this machine."""
    measured = profile.accelerator is not None or Cluster.measured(profile.name) or Cluster.measured(LOCAL)
    return profile.cluster() if measured else None


def _predecessors(recipe: Recipe, after: Run | Iterable[Run] | None, root: Path) -> tuple[str, ...]:
    given = _given(after)
    for run in given:
        if run.path.parent != root:
            raise LabError(f"run {run.id} lies in {run.path.parent}, not in {root}; runs of one chain share a folder")
    names = dict.fromkeys([*(run.id for run in given), *(ref.run for ref in recipe.refs())])
    for name in names:
        if not (root / name / "recipe.json").is_file():
            raise LabError(f"the recipe refers to run {name}, which is not in {root}")
    for ref in recipe.refs():
        before = Run(root / ref.run)
        if ref.artefact not in before.artefacts and before.state is RunState.COMPLETED:
            raise LabError(
                f"{ref}: run {ref.run} has completed without it; it made {', '.join(before.artefacts) or 'nothing'}"
            )
    return tuple(names)


def _given(after: Run | Iterable[Run] | None) -> list[Run]:
    return [] if after is None else [after] if isinstance(after, Run) else list(after)


def _registered(recipe: Recipe, plan: Estimate | None, root: Path) -> dict[str, Any]:
    """What is predicted before the start: the plan, and the loss curve where the stage has one."""
    if plan is None:
        return {}
    curve = forecast(recipe, root)
    return {
        "estimate": json.loads(plan.to_json()),
        "forecast": None if curve is None else curve.model_dump(mode="json"),
    }


def start(runs: Sequence[Run], attempt: int, at_once: int = 0) -> None:
    """Start runs of one size and one profile. Raises `LabError` where the machine or Slurm does not take them."""
    order = runs[0].order
    code = snapshot.folder(runs[0].path.parent, order.code)
    if order.profile.scheduler == "local":
        for run in runs:
            here.start(run, attempt, code)
        return
    most = min(order.profile.max_array, query.largest_array()) if len(runs) > 1 else 1
    waits, behind = tuple(_jobs(runs[0])), ""
    for first in range(0, len(runs), most):
        block = tuple(runs[first : first + most])
        sbatch.start(sbatch.Batch(block, code, attempt, waits, behind, at_once))
        held = block[-1].held_by
        behind = held.job_id.partition("_")[0] if held else ""


def _jobs(run: Run) -> list[str]:
    """Slurm ids of the predecessors that have not completed. Raises `LabError` where one has failed."""
    waits = []
    for before in (Run(run.path.parent / name) for name in run.order.after):
        state, held = before.state, before.held_by
        if state.finished and state is not RunState.COMPLETED:
            raise LabError(f"run {run.id} needs run {before.id}, which is {state}; resume that one first")
        if held and held.system == "slurm" and not state.finished:
            waits.append(held.job_id)
        elif not state.finished and run.order.profile.scheduler == "slurm":
            raise LabError(f"run {run.id} needs run {before.id}, which works on this machine and is {state}: a job would hold its nodes and wait; submit it when that one has completed")  # fmt: skip
    return waits
