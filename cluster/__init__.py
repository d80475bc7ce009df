"""A recipe becomes a job: a process of its own, on this machine today, that outlives whoever submitted it."""

from cluster.board import jobs
from cluster.submit import resume, stop, submit
from lablib.specs import Profile

__all__ = ["Profile", "jobs", "resume", "stop", "submit"]
