"""A recipe becomes a job: processes of their own, here or on a Slurm cluster, that outlive whoever submitted it.

Names are imported when they are asked for: what a batch script starts beside the ranks needs little of this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.board import jobs
    from cluster.calibration import calibrate
    from cluster.control import extend, requeue, resume, stop, tail, trace
    from cluster.mixing import learn_mixture
    from cluster.submission import submit, submit_all
    from cluster.tuning import tune
    from lablib.specs import Profile

_FROM = {
    "calibrate": "cluster.calibration",
    "jobs": "cluster.board",
    "learn_mixture": "cluster.mixing",
    **dict.fromkeys(("extend", "requeue", "resume", "stop", "tail", "trace"), "cluster.control"),
    **dict.fromkeys(("submit", "submit_all"), "cluster.submission"),
    "Profile": "lablib.specs",
    "tune": "cluster.tuning",
}

__all__ = [
    "Profile",
    "calibrate",
    "extend",
    "jobs",
    "learn_mixture",
    "requeue",
    "resume",
    "stop",
    "submit",
    "submit_all",
    "tail",
    "trace",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    found = getattr(import_module(_FROM[name]), name)
    globals()[name] = found
    return found
