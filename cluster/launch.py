"""``python -m cluster.launch FOLDER``: hand one run to submitit, then leave.

It runs in a session of its own, so that neither Ctrl-C in a terminal nor the end of a notebook kernel reaches the job,
and because it exits at once the job is nobody's child and leaves no zombie in the kernel.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import submitit

from cluster.job import Job
from lablib.runs import Run
from lablib.runs.heartbeat import Pulse, boot_id, born
from lablib.specs import write_atomic

FOREVER_MINUTES = 60 * 24 * 30
"""submitit's local executor insists on a time limit; a local run has none."""


def launch(run: Run, after: tuple[str, ...], gpus: int) -> None:
    """Start the run's processes under submitit's local executor and record who controls them."""
    executor = submitit.LocalExecutor(run.path / "logs")
    executor.update_parameters(
        tasks_per_node=run.recipe.gpus, gpus_per_node=gpus, timeout_min=FOREVER_MINUTES, stderr_to_stdout=True
    )
    job = executor.submit(Job(run.path, after))
    pid = int(job.job_id)
    controller = Pulse(socket.gethostname(), boot_id(), pid, born(pid), rank=-1, phase="submitted")
    write_atomic(
        run.path / "scheduler.json",
        json.dumps({"system": "local", "job_id": job.job_id, "after": after, "pulse": asdict(controller)}),
    )


if __name__ == "__main__":
    folder, gpus, *after = sys.argv[1:]
    launch(Run(Path(folder)), tuple(after), int(gpus))
