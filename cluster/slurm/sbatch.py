"""A run as a Slurm job, through submitit: one task a GPU, a batch script that survives.

submitit writes the script and its tasks' entry; ours are the lines before it. They start a `cluster.guard` beside the
ranks and leave an EXIT trap that has `cluster.settle` decide what follows; where that is another attempt, the script
puts its own job back into the queue. Slurm itself requeues after preemption and where a node fails.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.job import Job
from cluster.settle import AGAIN
from cluster.slurm import query
from lablib.runs import Run, orders
from lablib.specs import LabError, Profile, write_atomic

MINUTES = 60


def start(run: Run, attempt: int, code: Path, waits: Sequence[str] = ()) -> None:
    """Queue the run; `waits` are Slurm ids of jobs that must complete first. Raises `LabError` with sbatch's own words.

    In a process of its own, whose environment has nothing of an allocation that the caller may be in.
    """
    (run.path / "logs").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cluster.slurm.sbatch", str(run.path), str(attempt), str(code), *waits]
    done = subprocess.run(command, env=environment.of(run, code), capture_output=True, text=True, check=False)
    query.forget()
    if done.returncode:
        raise LabError(f"Slurm refused run {run.id}: {done.stderr.strip().splitlines()[-1]}")


def queue(run: Run, attempt: int, code: Path, waits: Sequence[str]) -> None:
    """What that process does; it ends with sbatch's last line where that refuses."""
    import submitit

    profile = run.order.profile
    executor = submitit.SlurmExecutor(run.path / "logs", python=shlex.quote(profile.python or sys.executable))
    executor.update_parameters(**parameters(run, attempt, code, waits))
    try:
        job = executor.submit(Job(run.path, run.order.after))
    except submitit.core.utils.FailedJobError as error:
        raise SystemExit(str(error).strip().splitlines()[-1]) from None
    held = orders.Record(system="slurm", job_id=job.job_id, attempts_before=attempt)
    write_atomic(run.path / "scheduler.json", held.to_json())


def parameters(run: Run, attempt: int, code: Path, waits: Sequence[str] = ()) -> dict[str, Any]:
    """submitit's parameters for a run: resources, survival, set-up lines."""
    profile, order = run.order.profile, run.order
    nodes, tasks = shape(run.recipe.gpus, profile)
    more = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": ",".join(filter(None, [profile.exclude, *order.exclude])) or None,
        "dependency": f"afterok:{':'.join(waits)}" if waits else None,
        "mem": f"{profile.memory_gib_per_node * tasks / profile.gpus_per_node:.0f}G"
        if profile.memory_gib_per_node
        else None,
        "gpus_per_node": tasks if profile.ask_for_gpus else None,
        "time": max(1, int((profile.time or 0) / MINUTES)) if profile.time else None,
    }
    always = {"requeue": True, "kill-on-invalid-dep": "yes"}
    return {
        "job_name": run.id,
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": profile.cpus_per_gpu or max(1, run.recipe.threads),
        "signal_delay_s": profile.signal_seconds,
        "stderr_to_stdout": True,
        "setup": lines(run, attempt, code),
        "srun_args": ["--kill-on-bad-exit=1", "--open-mode=append", *_container(profile)],
        "additional_parameters": always,
        **{name: value for name, value in more.items() if value is not None},
    }


def shape(world: int, profile: Profile) -> tuple[int, int]:
    """(nodes, tasks a node) for `world` processes. Raises `LabError` where they do not fill whole nodes evenly."""
    nodes = -(-world // profile.gpus_per_node)
    if world % nodes:
        raise LabError(f"parallelism: {world} processes do not divide over {nodes} nodes of {profile.gpus_per_node}; choose a multiple of {profile.gpus_per_node}")  # fmt: skip
    return nodes, world // nodes


def lines(run: Run, attempt: int, code: Path) -> list[str]:
    """Shell lines before submitit's own."""
    python = shlex.quote(run.order.profile.python or sys.executable)
    folder = shlex.quote(str(run.path))
    wanted = environment.of(run, code)
    names = ("PYTHONPATH", "PYTHONSAFEPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "LAB_HOME", "LAB_RUNS", "HF_HUB_OFFLINE",
             "HF_DATASETS_OFFLINE", "TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_TEMP_FILE")  # fmt: skip
    exports = [f"export {name}={shlex.quote(wanted[name])}" for name in names if name in wanted]
    return [
        *run.order.profile.setup,
        *exports,
        f"export LAB_ATTEMPT=$(({attempt} + ${{SLURM_RESTART_COUNT:-0}}))",
        f"{python} -m cluster.guard {folder} $SLURM_JOB_ID & guard=$!",
        "trap : TERM",  # else the shell would be gone, and settle, while its ranks still save
        "settle() {",
        "  code=$?; trap '' TERM; kill $guard 2>/dev/null",
        f"  {python} -m cluster.settle {folder} $code; code=$?",
        f"  if [ $code -eq {AGAIN} ]; then scontrol requeue $SLURM_JOB_ID && sleep 60; fi",
        "  exit $code",
        "}",
        "trap settle EXIT",
    ]


def _container(profile: Profile) -> list[str]:
    if profile.container is None or profile.container.runtime != "pyxis":
        return []
    mounts = [f"--container-mounts={','.join(profile.container.mounts)}"] if profile.container.mounts else []
    return [f"--container-image={profile.container.image}", *mounts]


if __name__ == "__main__":
    folder, first, snapshot, *jobs = sys.argv[1:]
    queue(Run(Path(folder)), int(first), Path(snapshot), jobs)
