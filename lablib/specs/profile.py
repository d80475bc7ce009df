"""`Profile`: where recipes run, and on what terms. The planner and the submitter read the same one.

Profiles are TOML files, found by name in ``$LAB_PROFILES``, ``~/.config/llm-lab/profiles`` and ``cluster/profiles`` of
this repository, in that order; "local" is this machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lablib.specs.base import Spec
from lablib.specs.container import Container
from lablib.specs.errors import LabError
from lablib.specs.fabric import Fabric
from lablib.specs.hardware import LOCAL, Accelerator, Cluster
from lablib.specs.paths import profile_folders
from lablib.specs.units import Dollars, Seconds

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@,:&|*!\[\]()+-]*")
"""What Slurm takes for a partition, an account, a node list, a constraint: nothing that a shell would read."""


class Profile(Spec):
    """One place to run: how to ask for it, what it has, what it costs."""

    name: str = LOCAL
    scheduler: Literal["local", "slurm"] = "local"
    accelerator: Accelerator | None = None
    """A name in the catalogue; None is what `lab calibrate --profile` measured there, else what it measured here."""
    nodes: int = Field(default=1, gt=0)
    """Most nodes that one job may take."""
    gpus_per_node: int = Field(default=1, gt=0)
    """Processes that a node takes, one a GPU (or one a few cores where there are none)."""
    fabric: Fabric | None = None
    price_per_gpu_hour: Dollars | None = None
    price_source: str = ""
    ask_for_gpus: bool = True
    """Whether jobs ask Slurm for GPUs; false on a cluster of CPUs."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    """Nodes never to use, as Slurm writes lists: ``lab[3-4]``."""
    time: Seconds | None = None
    """Longest that one job may run before it saves and queues again; None takes the partition's own limit."""
    cpus_per_gpu: int | None = Field(default=None, gt=0)
    memory_gib_per_node: float | None = Field(default=None, gt=0)
    signal_seconds: int = Field(default=180, gt=0)
    """How long before the end of its time a job is told to save."""
    max_array: int = Field(default=1000, gt=0)
    """Largest array that the cluster takes (`scontrol show config`: MaxArraySize − 1)."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job: module load ..., source ...; they are yours and run as they are."""
    python: str | None = None
    """Interpreter on the nodes; None is the one that submits, at the same path."""
    container: Container | None = None
    root: Path | None = None
    """Folder of runs on a filesystem that every node sees; None is ./runs."""
    scratch: Path | None = None
    """Fast folder of each node's own, which jobs take as $TMPDIR."""
    health: tuple[str, ...] = ()
    """Commands that each node must pass before step 1 (``dcgmi diag -r 1``); one that fails has the node excluded."""
    ssh: str | None = None
    """``user@login-node`` to submit from a machine that is not part of the cluster."""
    retries: int = Field(default=3, ge=0)
    """Attempts in a row that may end without a new checkpoint before the run is given up."""
    hang: Seconds = 1800.0
    """Seconds without any sign of progress after which a job is taken to hang, and started again."""

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a profile's name: lower-case letters, digits, '.', '_' and '-'")
        return value

    @field_validator("partition", "account", "qos", "constraint", "exclude", "ssh")
    @classmethod
    def _no_shell(cls, value: str | None) -> str | None:
        if value is not None and not WORD.fullmatch(value):
            raise ValueError(f"{value!r} has characters that Slurm's options do not take")
        return value

    @field_validator("root", "scratch")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("accelerator", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return Cluster(accelerator=value).accelerator if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scheduler == "local" and (self.ssh or self.container or self.partition):
            raise ValueError("scheduler='local' takes no ssh, container or partition; set scheduler = \"slurm\"")
        if self.time is not None and self.time <= self.signal_seconds:
            raise ValueError(
                f"time={self.time:.0f} s leaves nothing before the signal at signal_seconds={self.signal_seconds}"
            )
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A profile by name or by the path of its file. Raises `LabError` that lists the names there are."""
        text = str(path)
        if text.endswith((".toml", ".json")):
            return super().load(path)
        file = files().get(text)
        if file is None:
            raise LabError(f"profile={text!r} is not known; there are: {', '.join(sorted(files()))}. `lab cluster probe` drafts one from a Slurm login node")  # fmt: skip
        found = super().load(file)
        if found.name != text:
            raise LabError(f"{file} says name = {found.name!r}; give the file and the profile one name")
        return found

    def cluster(self) -> Cluster:
        """What the planner prices on, with the accelerator as it was measured there. Raises `LabError` where nothing says
        what it is."""
        measured = Cluster.measured(self.name)
        if self.accelerator is None and measured is None:
            measured = Cluster.load(LOCAL)
        if measured is not None and self.scheduler == "local" and self.accelerator is None:
            return measured
        card = self.accelerator
        fields = ("name", "nodes", "gpus_per_node", "fabric", "price_per_gpu_hour", "price_source")
        said = {field: getattr(self, field) for field in fields if getattr(self, field) is not None}
        if measured is not None and (card is None or card.name == measured.accelerator.name):
            return measured.replace(**said)
        return Cluster(accelerator=card, **said)


def files() -> dict[str, Path]:
    """Every profile's file by name; one in an earlier folder hides those of the same name behind it."""
    found: dict[str, Path] = {}
    for folder in profile_folders():
        for file in sorted(folder.glob("*.toml")):
            found.setdefault(file.stem, file)
    return found
