"""`Component`: a server that a job needs beside its ranks, such as the sampler of GRPO or a judge."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from lablib.specs.base import Spec
from lablib.specs.container import Container
from lablib.specs.units import Seconds

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


class Component(Spec):
    """One server. It starts with each attempt of the job, must answer before the ranks begin, and both end together."""

    name: str
    """What the ranks know it by: "sampler" is at ``$LAB_URL_SAMPLER``."""
    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments, run without a shell; ``{host}`` and ``{port}`` stand for where it must listen."""
    port: int = Field(default=0, ge=0, le=65535)
    """0 takes a free one."""
    nodes: int = Field(default=0, ge=0, le=1)
    """1 gives it a node of its own, with its GPUs; 0 shares the first node of the ranks. Slurm only."""
    ready: str = Field(default="/health", pattern=r"^/[A-Za-z0-9/_.-]*$")
    """Path that answers with a status below 400 once it can serve."""
    ready_seconds: Seconds = 900.0
    """Patience: loading a large model takes minutes."""
    container: Container | None = None
    """An image to run in (apptainer); None is the job's own surroundings."""

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a component's name: lower-case letters, digits and '_'")
        return value

    @field_validator("container")
    @classmethod
    def _apptainer(cls, value: Container | None) -> Container | None:
        if value is not None and value.runtime != "apptainer":
            raise ValueError('components run in apptainer images; set runtime = "apptainer"')
        return value

    @property
    def variable(self) -> str:
        """The environment variable that has its address."""
        return f"LAB_URL_{self.name.upper()}"
