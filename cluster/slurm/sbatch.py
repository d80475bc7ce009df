"""A run as a Slurm job, through submitit: one task a GPU, a batch script that survives.

submitit writes the script and its tasks' entry; ours are the lines before it. They start a `cluster.guard` beside the
ranks and leave an EXIT trap that has `cluster.settle` decide what follows; where that is another attempt, it puts
the job back into the queue. Slurm itself requeues after preemption and where a node fails.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import child, environment
from cluster.job import Job
from cluster.settle import AGAIN, GAVE_UP
from cluster.slurm import query
from lablib.runs import Run, orders
from lablib.specs import LabError, Profile, Recipe, write_atomic

MINUTES = 60
EARLY = 30
"""Seconds by which Slurm sends its warning early, as it looks that seldom; `cluster.guard` sends one on time."""
STARTS = re.compile(r"to start at (\S+)")


@dataclass(frozen=True)
class Batch:
    """Runs that one script queues: a single one, or the tasks of an array."""

    runs: tuple[Run, ...]
    code: Path
    attempt: int = 0
    waits: tuple[str, ...] = ()
    """Slurm ids of jobs that must complete first."""
    behind: str = ""
    """Slurm id of a job that must have ended, however: the block of the array before this one."""
    at_once: int = 0
    """Most tasks of the array that run at a time; 0 for all."""

    @property
    def folder(self) -> Path:
        """Where the script, the pickles and the ranks' logs go."""
        first = self.runs[0]
        return first.path / "logs" if len(self.runs) == 1 else first.path.parent / query.ARRAYS / first.id


def start(batch: Batch) -> None:
    """Queue the runs. Raises `LabError` with sbatch's own words.

    In a process of its own, whose environment has nothing of an allocation that the caller may be in.
    """
    batch.folder.mkdir(parents=True, exist_ok=True)
    said = {**vars(batch), "runs": [str(run.path) for run in batch.runs], "code": str(batch.code)}
    command = [sys.executable, "-m", "cluster.slurm.sbatch"]
    code, told = child.finish(command, environment.of(batch.runs[0], batch.code), json.dumps(said))
    query.forget()
    if code:
        last = told.strip().splitlines()[-1] if told.strip() else f"exit status {code}"
        raise LabError(f"Slurm refused run {batch.runs[0].id}: {last}")


def queue(batch: Batch) -> None:
    """What that process does; it ends with sbatch's last line where that refuses."""
    import submitit

    profile = batch.runs[0].order.profile
    python = profile.python or sys.executable
    inside = profile.container.within([python]) if profile.container else [python]
    executor = submitit.SlurmExecutor(batch.folder, python=shlex.join(inside))
    executor.update_parameters(**parameters(batch))
    try:
        with executor.batch():
            jobs = [executor.submit(Job(run.path)) for run in batch.runs]
    except submitit.core.utils.FailedJobError as error:
        raise SystemExit(str(error).strip().splitlines()[-1]) from None
    for run, job in zip(batch.runs, jobs, strict=True):
        held = orders.Record(system="slurm", job_id=job.job_id, attempts_before=batch.attempt, logs=str(batch.folder))
        write_atomic(run.path / "scheduler.json", held.to_json())


def asks(recipe: Recipe, profile: Profile, more_nodes: int = 0) -> dict[str, Any]:
    """What a job asks of Slurm, by sbatch's names with underscores; `more_nodes` are for components."""
    nodes, tasks = shape(recipe.gpus, profile)
    memory = profile.memory_gib_per_node
    wanted = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": f"{max(1, round(memory * 1024 * tasks / profile.gpus_per_node))}M" if memory else None,
        "gpus_per_node": tasks if profile.ask_for_gpus else None,
        "time": max(1, int(profile.time / MINUTES)) if profile.time else None,
        "nodes": nodes + more_nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": profile.cpus_per_gpu or max(1, recipe.threads),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def expected_start(recipe: Recipe, profile: Profile) -> str:
    """When Slurm would start the job if it were queued now (``sbatch --test-only``), as it writes times; nothing is queued.

    Raises `LabError` with sbatch's own words where it would refuse the job.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asks(recipe, profile).items()]
    exclude = [f"--exclude={profile.exclude}"] if profile.exclude else []
    told = query.command("sbatch", "--test-only", *flags, *exclude, "--wrap=true", stderr=True)
    found = STARTS.search(told)
    return found.group(1) if found else told.strip()


def parameters(batch: Batch) -> dict[str, Any]:
    """submitit's parameters: resources, survival, set-up lines."""
    run = batch.runs[0]
    profile, order = run.order.profile, run.order
    waits = [f"afterok:{':'.join(batch.waits)}"] if batch.waits else []
    behind = [f"afterany:{batch.behind}"] if batch.behind else []
    more = {
        "exclude": ",".join(filter(None, [profile.exclude, *order.exclude])) or None,
        "dependency": ",".join([*waits, *behind]) or None,
        "array_parallelism": batch.at_once or None,
    }
    return {
        **asks(run.recipe, profile, sum(one.nodes for one in order.components)),
        "job_name": run.id,
        "signal_delay_s": max(1, profile.signal_seconds - EARLY),
        "stderr_to_stdout": True,
        "setup": lines(batch),
        "srun_args": [*_step(run), "--kill-on-bad-exit=1", "--open-mode=append", *_container(profile)],
        "additional_parameters": {"requeue": True, "kill-on-invalid-dep": "yes"},
        **{name: value for name, value in more.items() if value is not None},
    }


def shape(world: int, profile: Profile) -> tuple[int, int]:
    """(nodes, tasks a node) for `world` processes. Raises `LabError` where they do not fill whole nodes evenly."""
    nodes = -(-world // profile.gpus_per_node)
    if world % nodes:
        raise LabError(f"parallelism: {world} processes do not divide over {nodes} nodes of {profile.gpus_per_node}; choose a multiple of {profile.gpus_per_node}")  # fmt: skip
    return nodes, world // nodes


def lines(batch: Batch) -> list[str]:
    """Shell lines before submitit's own."""
    profile = batch.runs[0].order.profile
    python = shlex.quote(profile.python or sys.executable)
    wanted = environment.of(batch.runs[0], batch.code)
    exports = [f"export {name}={shlex.quote(wanted[name])}" for name in environment.EXPORTED if name in wanted]
    return [
        *profile.setup,
        *exports,
        _which(batch),
        *([f"export TMPDIR={shlex.quote(str(profile.scratch))}"] if profile.scratch else []),
        f"export {environment.FLIGHT_RECORDER}=$run/logs/collectives-",
        # The last task of an array has the array's own id: alone it would name all of them.
        "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; job=${job:-$SLURM_JOB_ID}",
        f"export LAB_ATTEMPT=$(({batch.attempt} + ${{SLURM_RESTART_COUNT:-0}}))",
        # An attempt that its node took along could not account for itself; it counts against the retries too.
        f'if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then {python} -m cluster.settle "$run" before "$job" || exit {GAVE_UP}; fi',
        *_servers(batch.runs[0], python),
        f'{python} -m cluster.guard "$run" $job & guard=$!',
        "trap : TERM",  # else the shell would be gone, and settle, while its ranks still save
        "settle() {",
        "  code=$?; trap '' TERM; kill $guard 2>/dev/null",
        f'  {python} -m cluster.settle "$run" $code $job; code=$?',
        f"  if [ $code -eq {AGAIN} ]; then sleep 60; fi",  # it was requeued: Slurm ends this script
        "  exit $code",
        "}",
        "trap settle EXIT",
    ]


def _step(run: Run) -> list[str]:
    """The ranks' own nodes, where components have some of the job's."""
    if not run.order.components:
        return []
    nodes, tasks = shape(run.recipe.gpus, run.order.profile)
    return ["--overlap", f"--nodes={nodes}", f"--ntasks={nodes * tasks}"]


def _servers(run: Run, python: str) -> list[str]:
    """Lines that start the components, each a step before that of the ranks (which `cluster.guard` counts on)."""
    nodes, _ = shape(run.recipe.gpus, run.order.profile)
    made, place = [], nodes
    for one in run.order.components:
        where = f"--relative={place}" if one.nodes else "--relative=0"
        place += one.nodes
        address = f'"$run"/components/{one.name}.json'
        made += [
            f'rm -f {address} "$run"/components/{one.name}.exit',
            f'srun --overlap --nodes=1 --ntasks=1 {where} {python} -m cluster.components "$run" {one.name} & server=$!',
            f"while [ ! -e {address} ] && kill -0 $server 2>/dev/null; do sleep 0.2; done",
        ]
    return made


def _which(batch: Batch) -> str:
    """The line that sets ``$run``: a task of an array finds its folder by its number."""
    if len(batch.runs) == 1:
        return f"run={shlex.quote(str(batch.runs[0].path))}"
    listed = batch.folder / "runs.txt"
    write_atomic(listed, "".join(f"{run.path}\n" for run in batch.runs))
    return f'run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(listed))})'


def _container(profile: Profile) -> list[str]:
    if profile.container is None or profile.container.runtime != "pyxis":
        return []
    mounts = [f"--container-mounts={','.join(profile.container.mounts)}"] if profile.container.mounts else []
    return [f"--container-image={profile.container.image}", *mounts]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    runs = tuple(Run(Path(path)) for path in given["runs"])
    queue(Batch(**{**given, "runs": runs, "code": Path(given["code"]), "waits": tuple(given["waits"])}))
