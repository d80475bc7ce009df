"""A recipe becomes a job: processes of their own, here or on a Slurm cluster, that outlive whoever submitted it."""

from cluster.board import jobs
from cluster.control import extend, requeue, resume, stop, tail
from cluster.submit import submit, submit_all
from lablib.specs import Profile

__all__ = ["Profile", "extend", "jobs", "requeue", "resume", "stop", "submit", "submit_all", "tail"]
