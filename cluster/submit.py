"""`submit`: price a recipe, write its run folder, start it as a process of its own and return at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lablib.plan import estimate, forecast
from lablib.posttrain.later import refuse_planned_only
from lablib.runs import Recorder, Run, heartbeat
from lablib.specs import Cluster, LabError, Recipe
from lablib.specs.paths import home, runs_root

LOCAL = "local"


def submit(
    recipe: Recipe, profile: str = LOCAL, after: Run | Iterable[Run] | None = None, root: Path | None = None
) -> Run:
    """Start a recipe and return its run; the job waits for `after` and for every run that its references name.

    `root` is the folder of runs ($LAB_RUNS or ./runs). Raises `LabError` for a profile that does not exist, for a
    recipe that does not fit by its plan, and for a reference to a run that is not in `root`.
    """
    refuse_planned_only(recipe)
    root = (root or runs_root()).absolute()
    waits = _predecessors(recipe, after, root)
    cluster = local_cluster(profile)
    run = Run.create(recipe, root, cluster, **_registered(recipe, cluster, root))
    _start(run, waits)
    return run


def resume(run: Run) -> Run:
    """Start a stopped, lost or failed run again in its own folder; the stage continues from its last checkpoint.

    Raises `LabError` where the run is still going or has completed.
    """
    state = run.state
    if not state.finished:
        raise LabError(f"run {run.id} is {state}; stop it first with `lab stop {run.id}`")
    if state == "completed":
        raise LabError(f"run {run.id} has completed; submit its recipe again for another run")
    record = json.loads((run.path / "scheduler.json").read_text(encoding="utf-8"))
    Recorder(run.path).account_for_lost_attempts()
    for pulse in (run.path / "heartbeat").glob("*.json"):
        pulse.unlink()
    (run.path / "scheduler.json").unlink()
    _start(run, tuple(record["after"]))
    return run


def stop(run: Run) -> int:
    """Ask a run's processes on this machine to save and return; gives how many were asked.

    A process that only waits for another run ends at once. Raises `LabError` for a run of another machine.
    """
    live = [pulse for pulse in run.pulses if pulse.exit is None]
    if any(not heartbeat.same_machine(pulse) for pulse in live):
        raise LabError(f"run {run.id} works on {live[0].host}; stop it there")
    asked = [pulse.pid for pulse in live if heartbeat.alive(pulse)]
    for pid in asked:
        os.kill(pid, signal.SIGTERM)
    return len(asked)


def local_cluster(profile: str = LOCAL) -> Cluster | None:
    """This machine as `lab calibrate` measured it; None before that. Raises `LabError` for another profile."""
    if profile != LOCAL:
        raise LabError(f"profile={profile!r}: only 'local' stands so far; Slurm profiles are the next step of the lab")
    return Cluster.load(LOCAL) if (home() / "local-cluster.json").is_file() else None


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


def _registered(recipe: Recipe, cluster: Cluster | None, root: Path) -> dict[str, Any]:
    """What is predicted before the start: the plan, and the loss curve where the stage has one."""
    if cluster is None:
        return {}
    plan = estimate(recipe, cluster, root=root)
    if not plan.fits:
        raise LabError(f"{recipe.stage} would not run here: {'; '.join(plan.warnings)}")
    curve = forecast(recipe, root)
    return {
        "estimate": json.loads(plan.to_json()),
        "forecast": curve if curve is None else curve.model_dump(mode="json"),
    }


def _gpus(wanted: int) -> int:
    """How many of this machine's GPUs a job takes: one a process where there are that many, else none (CPU)."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return 0
    return wanted if len(listed.stdout.splitlines()) >= wanted else 0


def _environment(run: Run) -> dict[str, str]:
    """The job's environment: ours without a foreign job's variables, with its threads and the lab importable."""
    foreign = ("SLURM_", "SUBMITIT_", "TORCHELASTIC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([here, *filter(None, [kept.get("PYTHONPATH")])])
    threads = str(run.recipe.threads)
    # Waiting threads sleep instead of spinning: on busy cores a step of two threads is 2.5 times faster (docs/log.md).
    openmp = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    return {**kept, **openmp, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}


def _start(run: Run, after: tuple[str, ...]) -> None:
    (run.path / "logs").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cluster.launch", str(run.path), str(_gpus(run.recipe.gpus)), *after]
    log = (run.path / "logs" / "launch.log").open("ab")
    with log:
        done = subprocess.run(
            command, env=_environment(run), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    if done.returncode:
        raise LabError(f"run {run.id} could not be started; {run.path / 'logs' / 'launch.log'} says why")
