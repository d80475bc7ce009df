"""A real Slurm on one Debian machine, for development and tests: `DevSlurm`, ``python -m cluster.dev``."""

from cluster.dev.config import Shape
from cluster.dev.slurm import DevSlurm, missing

__all__ = ["DevSlurm", "Shape", "missing"]
