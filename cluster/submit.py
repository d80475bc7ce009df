"""`submit`: price a recipe, write its run folder, start it as processes of its own and return at once."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster import here, preflight, snapshot
from cluster.slurm import query, sbatch
from lablib.plan import Estimate, estimate, forecast
from lablib.posttrain.later import refuse_planned_only
from lablib.runs import Recorder, Run, RunState, jsonl, orders, provenance
from lablib.specs import Cluster, LabError, Profile, Recipe, write_atomic
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home, runs_root
from lablib.specs.units import parse_dollars


def submit(
    recipe: Recipe,
    profile: str | Profile = LOCAL,
    after: Run | Iterable[Run] | None = None,
    root: Path | None = None,
    max_dollars: str | float | None = None,
    max_gpu_hours: float | None = None,
) -> Run:
    """Start a recipe and return its run; the job waits for `after` and for every run that its references name.

    `profile` says where; `root` is the folder of runs (the profile's, $LAB_RUNS or ./runs). The run saves and stops when
    it has spent `max_dollars` or `max_gpu_hours`. Raises `LabError` for a profile that does not exist, for a recipe that
    cannot work there by its plan, and for a reference to a run that is not in `root`.
    """
    refuse_planned_only(recipe)
    where = Profile.load(profile) if isinstance(profile, str) else profile
    root = (root or where.root or runs_root()).absolute()
    preflight.check_accelerator(where)
    waits = _predecessors(recipe, after, root)
    cluster = priced_on(where)
    dollars = None if max_dollars is None else parse_dollars(max_dollars)
    if cluster and where.price_per_gpu_hour is None and cluster.price_per_gpu_hour is not None:
        where = where.replace(price_per_gpu_hour=cluster.price_per_gpu_hour)
    if dollars is not None and where.price_per_gpu_hour is None:
        raise LabError(f"max_dollars={dollars}: profile {where.name} has no price_per_gpu_hour to count by; give max_gpu_hours, or the profile a price")  # fmt: skip
    plan = None if cluster is None else estimate(recipe, cluster, root=root)
    preflight.check(recipe, where, plan, root)
    order = orders.Order(
        profile=where, after=waits, max_dollars=dollars, max_gpu_hours=max_gpu_hours, code=snapshot.take(root)
    )
    run = Run.create(
        recipe,
        root,
        cluster,
        order=json.loads(order.to_json()),
        code={**provenance.code(), "snapshot": order.code},
        **_registered(recipe, plan, root),
    )
    try:
        _start(run, 0)
    except LabError:
        shutil.rmtree(run.path)  # what was never queued is no run
        raise
    return run


def resume(run: Run) -> Run:
    """Start a stopped, lost or failed run again in its own folder; the stage continues from its last checkpoint,
    with the code as it is now.

    Raises `LabError` where the run is still going or has completed.
    """
    state = run.state
    if not state.finished:
        raise LabError(f"run {run.id} is {state}; stop it first with `lab stop {run.id}`")
    if state is RunState.COMPLETED:
        raise LabError(f"run {run.id} has completed; submit its recipe again for another run")
    Recorder(run.path).account_for_lost_attempts()
    attempt = 1 + max((event.get("attempt", 0) for event in run.events() if event["kind"] == "started"), default=-1)
    for name in (orders.STOP, "scheduler.json", "view.json", "settled.json"):
        (run.path / name).unlink(missing_ok=True)
    for pulse in (run.path / "heartbeat").glob("*.json"):
        pulse.unlink()
    order = run.order.replace(code=snapshot.take(run.path.parent))
    order.save(run.path / "order.json")
    write_atomic(run.path / "code.json", json.dumps({**provenance.code(), "snapshot": order.code}))
    jsonl.append(
        run.path / "events.jsonl", {"kind": "resubmitted", "time": time.time(), "attempt": attempt, "code": order.code}
    )
    _start(run, attempt)
    return run


def stop(run: Run) -> int:
    """Ask a run to save and end, wherever it is; gives how many processes or jobs were asked.

    A job that has not begun is taken out of the queue. Raises `LabError` for processes of another machine.
    """
    held = run.held_by
    if run.state.finished:
        return 0
    write_atomic(run.path / orders.STOP, json.dumps({"at": time.time()}))
    if held is None or held.system == "local":
        return here.stop(run)
    waiting = run.view is None or run.view.pending
    query.command("scancel", *([] if waiting else ["--signal=USR2"]), held.job_id)
    query.forget()
    return 1


def priced_on(profile: Profile) -> Cluster | None:
    """What the planner prices on; None on this machine before `lab calibrate`."""
    if profile.accelerator is None and not (home() / "local-cluster.json").is_file():
        return None
    return profile.cluster()


def _predecessors(recipe: Recipe, after: Run | Iterable[Run] | None, root: Path) -> tuple[str, ...]:
    given = [] if after is None else [after] if isinstance(after, Run) else list(after)
    for run in given:
        if run.path.parent != root:
            raise LabError(f"run {run.id} lies in {run.path.parent}, not in {root}; runs of one chain share a folder")
    names = dict.fromkeys([*(run.id for run in given), *(ref.run for ref in recipe.refs())])
    for name in names:
        if not (root / name / "recipe.json").is_file():
            raise LabError(f"the recipe refers to run {name}, which is not in {root}")
    return tuple(names)


def _registered(recipe: Recipe, plan: Estimate | None, root: Path) -> dict[str, Any]:
    """What is predicted before the start: the plan, and the loss curve where the stage has one."""
    if plan is None:
        return {}
    curve = forecast(recipe, root)
    return {
        "estimate": json.loads(plan.to_json()),
        "forecast": None if curve is None else curve.model_dump(mode="json"),
    }


def _start(run: Run, attempt: int) -> None:
    code = snapshot.folder(run.path.parent, run.order.code)
    if run.order.profile.scheduler == "local":
        here.start(run, attempt, code)
    else:
        sbatch.start(run, attempt, code, _jobs(run))


def _jobs(run: Run) -> list[str]:
    """Slurm ids of the predecessors that have not completed. Raises `LabError` where one has failed."""
    waits = []
    for before in (Run(run.path.parent / name) for name in run.order.after):
        state, held = before.state, before.held_by
        if state.finished and state is not RunState.COMPLETED:
            raise LabError(f"run {run.id} needs run {before.id}, which is {state}; resume that one first")
        if held and held.system == "slurm" and not state.finished:
            waits.append(held.job_id)
    return waits
