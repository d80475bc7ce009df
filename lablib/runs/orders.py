"""What a run was submitted with (`Order`), who has it now (`Record`), and how the scheduler saw it last (`View`).

Three small JSON files of a run folder: ``order.json`` is written at submission and where somebody changes its limits, ``scheduler.json`` at each submission and
``view.json`` by whoever asks the scheduler. `watch_with` lets the cluster floor, which may ask it, keep views fresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from lablib.runs import documents
from lablib.runs.heartbeat import Pulse
from lablib.specs import Spec, write_atomic
from lablib.specs.component import Component
from lablib.specs.profile import Profile
from lablib.specs.units import Dollars

STOP = "stop.json"
"""A run folder with this file is asked to save and stop, from whichever machine."""
TRACE = "trace.json"
"""A run folder with this file is asked to trace its next ``steps`` steps."""
ORIGIN = "origin.json"
"""A folder with this file mirrors a run of another machine, whose scheduler only that one can ask."""
CODE = ".code"
"""Below the folder of runs: the copies of the code that their jobs import, each named by its hash."""
PENDING = (
    "PENDING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "SUSPENDED",
    "CONFIGURING",
)
ACTIVE = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED")
"""Slurm's states of a job that will still do something (slurm 22.05, squeue(1)); every other one is final."""
UNKNOWN = "UNKNOWN"
"""Not Slurm's: the scheduler answers, and does not know the job any more."""


class Order(Spec):
    """How a run is to be run: where, after what, from which code, and up to what."""

    profile: Profile = Profile()
    after: tuple[str, ...] = ()
    """Ids of sibling runs that must have completed first."""
    behind: str = ""
    """Id of a sibling run that must have ended first, however: it has the place that this one takes."""
    components: tuple[Component, ...] = ()
    """Servers that live as long as each attempt."""
    report: bool = False
    """Whether the job, once completed, reports on itself and the runs that it needed."""
    max_dollars: Dollars | None = None
    max_gpu_hours: float | None = Field(default=None, gt=0)
    """What the run may spend over all attempts before it saves and stops."""
    code: str = ""
    """Hash of the code snapshot that every attempt imports."""
    exclude: tuple[str, ...] = ()
    """Nodes found bad by an attempt; later ones stay away from them."""

    def nodes(self, ranks: int) -> int:
        """Nodes that a job of so many ranks takes, those of its components included."""
        return -(-ranks // self.profile.gpus_per_node) + sum(one.nodes for one in self.components)

    def gpus(self, ranks: int) -> int:
        """Accelerators that it holds, and is paid for: a job has as many on the nodes of its components as on its ranks'."""
        own = -(-ranks // self.profile.gpus_per_node)
        return ranks // own * self.nodes(ranks)


class Record(Spec):
    """The submission that has the run in hand."""

    system: str = "local"
    job_id: str = ""
    """Slurm's job id (``123`` or ``123_4``); on this machine the supervisor's pid."""
    attempts_before: int = 0
    """Attempts of earlier submissions; this one's count on from there."""
    submitted: float = Field(default_factory=time.time)
    logs: str = ""
    """Folder of the ranks' logs; empty is the run's own."""
    pulse: dict[str, Any] | None = None
    """The local supervisor."""

    @property
    def supervisor(self) -> Pulse | None:
        """The local supervisor's process."""
        return None if self.pulse is None else Pulse(**self.pulse)

    @classmethod
    def from_file(cls, fields: dict[str, Any]) -> Record:
        """A record of the fields that this version knows. Raises `LabError` or `TypeError` for wrong ones."""
        held = cls(**{name: value for name, value in fields.items() if name in cls.model_fields})
        return held if held.supervisor is None else held.replace(pulse=asdict(held.supervisor))


class View(Spec):
    """How the scheduler saw the job when it was last asked."""

    state: str
    """Slurm's word, in capitals, without its suffix ("CANCELLED by 0" is CANCELLED)."""
    reason: str = ""
    nodes: str = ""
    start: str = ""
    """ISO time: when it started or is expected to."""
    restarts: int = 0
    exit: str = ""
    """``code:signal`` of the job, or of the step that says more (OUT_OF_MEMORY, a signal)."""
    at: float = Field(default_factory=time.time)

    @property
    def pending(self) -> bool:
        """Whether it waits for its turn."""
        return self.state in PENDING

    @property
    def final(self) -> bool:
        """Whether the scheduler is done with it."""
        return self.state not in PENDING and self.state not in ACTIVE


_watchers: dict[str, Callable[[Path, Record], View | None]] = {}
_unwritten: dict[Path, View] = {}
"""Views of runs whose folders this process may not write in: another user's, or on a full disk."""


def watch_with(system: str, ask: Callable[[Path, Record], View | None]) -> None:
    """Have `ask` answer for runs of `system`, for as long as this process lives; it must be quick and cached."""
    _watchers[system] = ask


def order(run: Path) -> Order:
    """What the run was submitted with; the defaults for a run from before there were orders."""
    text = documents.text(run / "order.json")
    return Order() if text is None else documents.parsed(run / "order.json", text, Order.from_json)


def record(run: Path) -> Record | None:
    """Who has the run in hand; None before it is submitted."""
    file = run / "scheduler.json"
    found = documents.table(file)
    return None if found is None else documents.parsed(file, found, Record.from_file)


def view(run: Path, held: Record | None) -> View | None:
    """The scheduler's view: fresh where somebody here can ask, else as it was last written."""
    if held is None or held.system == "local":
        return None
    ask = None if (run / ORIGIN).is_file() else _watchers.get(held.system)
    fresh = ask(run, held) if ask else None
    return kept_view(run) if fresh is None else fresh


def kept_view(run: Path) -> View | None:
    """The view as it was last kept, by whomever; None before that."""
    if run in _unwritten:
        return _unwritten[run]
    text = documents.text(run / "view.json")
    return None if text is None else documents.parsed(run / "view.json", text, View.from_json)


def keep_view(run: Path, seen: View) -> None:
    """Write a view where it says something new; a reader that may not write there keeps it in memory."""
    last = kept_view(run)
    if last is not None and last.replace(at=seen.at) == seen:
        return
    try:
        write_atomic(run / "view.json", seen.to_json())
        _unwritten.pop(run, None)
    except OSError:
        _unwritten[run] = seen
