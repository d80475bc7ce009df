"""`Recorder`: what a job writes into its run directory while it works."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lablib.runs import artefacts, documents, heartbeat, jsonl, orders, provenance, signals
from lablib.runs.state import ENDED, HOPELESS, STOPPED
from lablib.specs import AnyRecipe, LabError, Recipe, Ref, parse_recipe, write_atomic

DETERMINED = (LabError, ImportError, TypeError, ValueError, LookupError, AttributeError, NotImplementedError)
"""Errors that another attempt would only repeat; everything else may be the machine's fault."""
LOOK = 2.0
"""Seconds between looks of a node's first rank at the marker that asks a run to stop, and at the budget."""
LOOK_BESIDE = 5.0
"""The same for the node's other ranks: a shared filesystem answers each of them."""
PROGRESS = 2.0
"""Seconds between two writings of ``progress.json``."""


class Stopped(Exception):
    """The job was asked to stop in the middle of work that begins again; what was finished is kept."""


class Recorder:
    """One process's hand on a run folder. Rank 0 writes metrics, events, artefacts and the manifest."""

    def __init__(self, path: Path, rank: int = 0) -> None:
        """`path` is an existing run folder. Raises `LabError` where it is not one."""
        if not (path / "recipe.json").is_file():
            raise LabError(f"{path} is not a run folder: it has no recipe.json")
        self.path, self.rank = path.absolute(), rank
        self.recipe: AnyRecipe = parse_recipe(json.loads((path / "recipe.json").read_text(encoding="utf-8")))
        self.attempt = int(os.environ.get("LAB_ATTEMPT", "0"))
        self.leads = int(os.environ.get("LOCAL_RANK", "0")) == 0
        self._stop = threading.Event()
        self._why = ""
        self._looked = 0.0
        self._sought = 0.0
        self._spent_before = 0.0
        self._heart: heartbeat.Heart | None = None
        self._progressed = 0.0
        self._first: tuple[float, float] | None = None
        self._since = time.monotonic()

    @classmethod
    def create(cls, root: Path, recipe: Recipe) -> Recorder:
        """A fresh run folder below `root`, opened for writing."""
        from lablib.runs.run import Run

        return cls(Run.create(recipe, root).path)

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0."""
        return self.rank == 0

    @property
    def stop_requested(self) -> bool:
        """Whether the job is to save and return: a signal came, somebody asked (`orders.STOP`), or the budget is spent."""
        if not self._stop.is_set() and time.monotonic() - self._looked > (LOOK if self.leads else LOOK_BESIDE):
            self._looked = time.monotonic()
            if (self.path / orders.STOP).exists():
                self.request_stop("asked")
            elif self.is_main and self._over_budget():
                self.request_stop("budget")
        return self._stop.is_set()

    def heed(self, *_: object) -> None:
        """Raise `Stopped` where the job is to save and return; takes what a report of progress is called with."""
        if self.stop_requested:
            raise Stopped

    def request_stop(self, why: str = "asked") -> None:
        """Ask this job to save and return; `why` is "asked", "limit" (time or preemption), "signal" or "budget". A signal
        that comes with somebody's marker (`orders.STOP`) is that person's."""
        asked = (self.path / orders.STOP).exists()
        self._why = self._why or ("asked" if asked else why)
        self._stop.set()

    @property
    def trace_requested(self) -> int:
        """Steps that somebody asked to have traced (`orders.TRACE`), told once and to rank 0 alone; else 0."""
        if not self.is_main or time.monotonic() - self._sought <= LOOK:
            return 0
        self._sought, file = time.monotonic(), self.path / orders.TRACE
        try:
            asked = documents.table(file, "steps")
            return 0 if asked is None else max(0, documents.parsed(file, asked["steps"], int))
        except LabError as error:
            self.event("trace_failed", reason=str(error))
            return 0
        finally:
            file.unlink(missing_ok=True)

    @property
    def seconds(self) -> float:
        """Working time of all attempts so far; rank 0 alone knows of earlier ones."""
        return self._spent_before + self._worked()

    def _over_budget(self) -> bool:
        order = orders.order(self.path)  # read anew: a budget can be extended
        hours = self.seconds / 3600 * order.gpus(self.recipe.gpus)
        price = order.profile.price_per_gpu_hour
        dollars = None if price is None else hours * price
        most = order.max_gpu_hours, order.max_dollars
        return any(
            limit is not None and spent is not None and spent >= limit
            for spent, limit in zip((hours, dollars), most, strict=True)
        )

    def log(self, step: int, stream: str = "train", **values: float | int | str) -> None:
        """Append one row to ``metrics/<stream>.jsonl``; a step that is logged again replaces the earlier row."""
        if self.is_main:
            jsonl.append(self.path / "metrics" / f"{stream}.jsonl", {"step": step, "time": time.time(), **values})

    def event(self, kind: str, **details: Any) -> None:
        """Append one row to ``events.jsonl``."""
        if self.is_main:
            jsonl.event(self.path, kind, **details)

    def saved(self, at_step: int, path: Path, **details: Any) -> None:
        """Say that everything up to `at_step` is kept at `path` and need not be done again.

        Every stage says so by this, in steps or whatever it counts: an attempt that kept more than those before it made
        progress (`cluster.settle`), and one that did not may be the run's last.
        """
        inside = path.is_relative_to(self.path)
        self.event("checkpoint", at_step=at_step, path=str(path.relative_to(self.path) if inside else path), **details)

    def progress(self, done: float, total: float, unit: str = "steps") -> None:
        """How far the stage is, and how fast since this attempt began; written every `PROGRESS` seconds and at the end."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        if self.is_main and (done >= total or now - self._progressed > PROGRESS):
            self._progressed = now
            before, begun = self._first
            rate = (done - before) / (now - begun) if done > before else None
            state = {"done": done, "total": total, "unit": unit, "time": time.time(), "per_second": rate}
            write_atomic(self.path / "progress.json", json.dumps(state), durable=False)

    def folder(self, name: str) -> Path:
        """A subfolder of the run, made if need be."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def artefact(self, name: str, path: Path, kind: str = "file") -> None:
        """Register a result under `name` with its checksum. Raises `LabError` for a path outside the run."""
        if self.is_main:
            made = artefacts.register(self.path, name, path, kind)
            self.event("artefact", name=name, bytes=made.bytes, sha256=made.sha256[:16])

    def input(self, source: Ref | str | Path) -> Path:
        """The local path of an input, verified and frozen in the manifest by checksum.

        Raises `LabError` where it is missing, or where a resumed run finds another content than it began with.
        """
        if isinstance(source, Ref):
            path, made = artefacts.resolve(source, self.path.parent)
            sha256 = made.sha256
        else:
            path = Path(source).absolute()
            sha256 = artefacts.fingerprint(path)[0]
        self._freeze(str(source), sha256)
        return path

    def _freeze(self, source: str, sha256: str) -> None:
        frozen = self._manifest().get("inputs", {})
        if frozen.get(source, sha256) != sha256:
            raise LabError(f"input {source} has changed since this run began; submit a new run to use the new content")
        if self.is_main:
            self._update_manifest(inputs={**frozen, source: sha256})

    def note(self, **facts: Any) -> None:
        """Add provenance to the manifest's ``notes``."""
        if self.is_main:
            self._update_manifest(notes={**self._manifest().get("notes", {}), **facts})

    def _manifest(self) -> dict[str, Any]:
        return documents.table(self.path / "manifest.json") or {}

    def _update_manifest(self, **changes: Any) -> None:
        write_atomic(self.path / "manifest.json", json.dumps({**self._manifest(), **changes}, indent=1, default=str))

    @contextmanager
    def working(self, phase: str = "running") -> Iterator[Recorder]:
        """Heartbeat, signals, provenance and exit status around a job's work.

        A `LabError` or any other exception is recorded with its traceback and raised again.
        """
        self.account_for_lost_attempts()
        self._dump_stacks_on_request()
        with signals.told_to(self.request_stop):  # before anybody can see that the run lives, and ask it to stop
            heart = self._begin(phase)
            try:
                yield self
            except BaseException as error:
                reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
                self.event("failed", reason=reason, traceback=traceback.format_exc(), seconds=self._worked())
                heart.stop(HOPELESS if isinstance(error, DETERMINED) else 1, reason)
                raise
            stopped = self.stop_requested
        why = {"why": self._why} if self._why else {}
        self.event("stopped" if stopped else "completed", seconds=self._worked(), peak_gib=heart.pulse.peak_gib, **why)
        heart.stop(STOPPED if stopped else 0)

    def _begin(self, phase: str) -> heartbeat.Heart:
        """The first heartbeat, and where the run comes from."""
        self._heart = heartbeat.Heart(self.path, self.rank, phase, self.attempt, self.leads)
        self._since = time.monotonic()
        self._spent_before = ended_seconds(jsonl.events(self.path)) if self.is_main else 0.0
        self._describe()
        self.event("started", pid=os.getpid(), rank=self.rank, attempt=self.attempt)
        return self._heart

    def enter(self, phase: str) -> None:
        """Say what the process is at ("waiting", "preparing data", "running"); time spent waiting does not count as the run's."""
        if self._heart and phase != (left := self._heart.pulse.phase):
            if left == "waiting":
                self._since = time.monotonic()
            self._heart.beat(phase=phase, **({"started": time.time()} if left == "waiting" else {}))
            self.event("phase", phase=phase, left=left)

    def _worked(self) -> float:
        waiting = self._heart is not None and self._heart.pulse.phase == "waiting"
        return 0.0 if waiting else time.monotonic() - self._since

    def account_for_lost_attempts(self) -> None:
        """Write a "lost" event for an earlier attempt that died without a word, so that its time still counts, once."""
        known = {(event.get("pid"), event.get("attempt")) for event in jsonl.events(self.path) if event["kind"] == "lost"}  # fmt: skip
        for old in heartbeat.read_all(self.path):
            if old.rank == self.rank and old.exit is None and (old.pid, old.attempt) not in known:
                seconds = 0.0 if old.phase == "waiting" else max(0.0, old.at - old.started)
                self.event("lost", seconds=seconds, peak_gib=old.peak_gib, pid=old.pid, attempt=old.attempt)

    def _describe(self) -> None:
        if not self.is_main:
            return
        facts = {"run": self.path.name, "stage": self.recipe.stage, "seed": self.recipe.seed}
        hashes = {"recipe_hash": self.recipe.content_hash, "science_hash": self.recipe.science_hash}
        origin = {"code": self._code(), "versions": provenance.versions(), "hardware": provenance.hardware()}
        self._update_manifest(schema=1, **facts, **hashes, **origin, command=sys.argv)

    def _code(self) -> dict[str, Any]:
        """The commit as the submitter's checkout had it; a job imports a copy, which has no history."""
        found = documents.table(self.path / "code.json")
        return provenance.code() if found is None else found

    def _dump_stacks_on_request(self) -> None:
        """SIGUSR1 writes every thread's stack to ``logs/stacks-<rank>.txt``, also where Python itself is stuck."""
        if threading.current_thread() is not threading.main_thread():
            return
        logs = self.folder("logs")
        self._stacks = (logs / f"stacks-{self.rank}.txt").open("a", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)


def ended_seconds(events: list[dict[str, Any]]) -> float:
    """Working seconds of the attempts that have ended."""
    return sum(event.get("seconds", 0.0) for event in events if event["kind"] in ENDED)
