"""Checkpoints that are whole or absent: written aside, verified by size and checksum, published by one rename.

``checkpoints/step-00000120/`` holds the shards of weights and optimiser, each rank's random state, and
``checkpoint.json``: step, data position, recipe hash, layout, and every file's size and SHA-256.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.api import CheckpointException

from lablib.models.checkpoints import MARKER, fingerprint
from lablib.specs import LabError, write_atomic
from lablib.train import rng
from lablib.train.beside import Beside
from lablib.train.distributed import World
from lablib.train.rules.base import moments, set_step
from lablib.train.sharded import Tensors, load_tensors, save_tensors, settled

T = TypeVar("T")
RUNGS = 4
"""Times the usual way back that checkpoints are kept for: a spike that recurs is met further back each time."""


@dataclass(frozen=True)
class Position:
    """Where a run stands, besides its tensors."""

    step: int
    """Optimiser steps done; the schedule is a function of it."""
    sequences: int
    """Global index of the next training sequence: all the state the data has."""
    science: str
    """`science_hash` of the recipe."""
    passed: dict[str, int] = field(default_factory=dict)
    """Domain → tokens before `sequences` that were passed over without an update."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What the stability guard remembers, and the routers, as JSON."""


def tensors_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Weights, persistent buffers and the optimiser's state by name, as the live tensors; what is missing begins fresh."""
    found = weights_of(model)
    for name, weight in model.named_parameters():
        found |= {f"{moment}.{name}": tensor for moment, tensor in moments(optimizer, weight).items()}
    return found


def weights_of(model: torch.nn.Module) -> Tensors:
    """Weights and persistent buffers by their names in a checkpoint."""
    kept = set(model.state_dict())
    found: Tensors = {f"model.{name}": weight for name, weight in model.named_parameters()}
    return found | {f"model.{name}": buffer for name, buffer in model.named_buffers() if name in kept}


class _Unwritten(Exception):
    """Some rank could not write."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(
        self, folder: Path, world: World, keep: int, back: int = 0, every: int | None = None, beside: bool = False
    ) -> None:  # fmt: skip
        """`keep` is how many of the newest to keep; `folder` may not exist yet. `back` and `every` are steps, as in `kept`.

        With `beside` the state is copied to the host and written in a thread while the training goes on, one checkpoint at a
        time; every rank builds this object then.
        """
        self.folder, self.world, self.keep, self.back, self.every = folder, world, keep, back, every
        self.before = 0
        """Updates that the optimiser made before the first step; a checkpoint knows them."""
        self._beside = Beside() if beside else None
        self._writers = world.apart() if beside else world
        self._news: deque[tuple[int, Path]] = deque()
        self._held: dict[int, float] = {}
        self._published = -1
        """Step of the newest checkpoint that this run stands on; later ones are torn or of a path that was left."""
        self.torn: list[str] = []
        """Names of those that the last search passed over because they were not whole."""

    def save(self, model: Any, optimizer: torch.optim.Optimizer, at: Position, layout: str) -> Path:
        """Write and publish the state, once for a step; other checkpoints go only after that: older ones as `kept` says, and
        those that are later than what the run was loaded from. Every rank calls it. Gives where it is, or is going to be.

        Raises `LabError` on every rank where one cannot write, beside the training where that is waited for; what was
        published before stays.
        """
        begun = time.perf_counter()
        self.wait()
        target = self.folder / f"step-{at.step:08d}"
        if at.step == self._published:
            return target
        tensors, random = settled(tensors_of(model, optimizer), copied=self._beside is not None), rng.capture()

        def write() -> None:
            self._save(target, tensors, random, {**asdict(at), "updates": self.before + at.step, "layout": layout})

        write() if self._beside is None else self._beside.begin(write)
        self._held[at.step] = time.perf_counter() - begun
        return target

    def _save(self, target: Path, tensors: Tensors, random: Tensors, marker: dict[str, Any]) -> None:
        aside, writers = self.folder / f".{target.name}.writing", self._writers
        try:
            self._agreed(lambda: self._clear(aside))
            self._agreed(lambda: self._write(aside, tensors, random))
            parts = writers.collect(self._agreed(lambda: self._seal(aside)))
            files = {name: row for part in parts for name, row in part.items()}
            marker |= {"processes": writers.size, "files": files}
            self._agreed(lambda: self._publish(aside, target, marker))
        except _Unwritten as problem:
            shutil.rmtree(aside, ignore_errors=True)
            raise LabError(f"checkpoint of step {marker['step']} could not be written to {self.folder}: {problem}; earlier checkpoints are untouched: free space and submit the run again") from None  # fmt: skip
        self._published = marker["step"]
        self._news.append((marker["step"], target))

    def wait(self, seconds: float | None = None) -> None:
        """Return when nothing is being written, or after `seconds`. Raises `LabError` where it could not be written."""
        if self._beside is not None:
            self._beside.wait(seconds)

    def news(self) -> list[tuple[int, Path, float]]:
        """(Step, folder, seconds that training waited) of each checkpoint published since the last call, in order."""
        found = [self._news.popleft() for _ in range(len(self._news))]  # the thread may add one meanwhile
        return [(step, path, self._held.pop(step)) for step, path in found]

    def _agreed(self, work: Callable[[], T]) -> T:
        """Do a rank's part; where any rank fails, all raise."""
        made, problem = [], ""
        try:
            made.append(work())
        except (OSError, CheckpointException, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
        problems = [text for text in self._writers.collect(problem) if text]
        if problems:
            raise _Unwritten(problems[0])
        return made[0]

    def _clear(self, aside: Path) -> None:
        if self.world.is_main:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)

    def _write(self, aside: Path, tensors: Tensors, random: Tensors) -> None:
        save_tensors(tensors, aside, self._writers.group)
        save_file(random, aside / f"random-{self.world.rank}.safetensors")

    def _seal(self, aside: Path) -> dict[str, list[Any]]:
        mine = sorted(file for file in aside.iterdir())[self.world.rank :: self.world.size]
        for file in mine:
            _sync(file)
        return {file.name: list(fingerprint(file)) for file in mine}

    def _publish(self, aside: Path, target: Path, marker: dict[str, Any]) -> None:
        if not self.world.is_main:
            return
        write_atomic(aside / MARKER, json.dumps(marker, indent=1))
        shutil.rmtree(target, ignore_errors=True)  # it was torn, or of a path that was left
        aside.rename(target)
        _sync(self.folder)
        for unfinished in self.folder.glob(".step-*.writing"):
            shutil.rmtree(unfinished, ignore_errors=True)
        found = {_step(path.name): path for path in self.folder.glob("step-*")}
        ours = [step for step in found if step <= self._published] + [_step(target.name)]
        wanted = kept(sorted(ours), self.keep, self.back, self.every)
        for step in set(found) - wanted:
            shutil.rmtree(found[step], ignore_errors=True)

    def latest(self, usable: Callable[[dict[str, Any]], bool] = bool) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint whose marker is `usable`, and that marker, the same on every rank; a torn one is passed
        over."""
        self.wait()
        self.torn = []
        for name in self._names():
            path = self.folder / name
            marker = _marker(path)
            if self.world.any(marker is not None and not usable(marker)):
                continue
            if not self.world.any(marker is None or not self._whole(path, marker["files"])) and marker:
                return path, marker
            self.torn.append(name)
        return None

    def steps(self, usable: Callable[[dict[str, Any]], bool]) -> list[int]:
        """Steps of the checkpoints whose marker is `usable`, the same on every rank; their content is not read."""

        def found() -> list[int]:
            markers = (_marker(path) for path in self.folder.glob("step-*"))
            return sorted(marker["step"] for marker in markers if marker and usable(marker))

        self.wait()
        return self.world.from_main(found)

    def whole(self, step: int) -> bool:
        """Whether all of the checkpoint of `step` is there as it was written. Every rank calls it."""
        self.wait()
        path = self.folder / f"step-{step:08d}"
        marker = _marker(path)
        return not self.world.any(marker is None or not self._whole(path, marker["files"]))

    def _names(self) -> list[str]:
        return self.world.from_main(lambda: sorted((path.name for path in self.folder.glob("step-*")), reverse=True))

    def _whole(self, path: Path, files: dict[str, list[Any]]) -> bool:
        names = sorted(files)[self.world.rank :: self.world.size]
        return all((path / name).is_file() and list(fingerprint(path / name)) == files[name] for name in names)

    def load(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        science: str,
        usable: Callable[[dict[str, Any]], bool] = bool,
    ) -> Position | None:
        """Fill model, optimiser and random state from the newest whole checkpoint that is `usable`; None where there is none.

        Works under another layout or number of processes; random states are then left as they are (pretraining draws
        nothing from them). Raises `LabError` where the checkpoint belongs to another experiment.
        """
        found = self.latest(usable)
        self._published = -1
        if found is None:
            return None
        path, marker = found
        if marker["science"] != science:
            raise LabError(f"{path} was written by another recipe (science hash {marker['science']}, this one is {science}); submit the changed recipe as a new run")  # fmt: skip
        load_tensors(tensors_of(model, optimizer), path)
        self.before = marker.get("updates", marker["step"]) - marker["step"]
        set_step(optimizer, self.before + marker["step"])
        own = path / f"random-{self.world.rank}.safetensors"
        if marker["processes"] == self.world.size:
            rng.restore(load_file(own))
        self._published = marker["step"]
        passed = marker.get("passed")  # once a number of sequences, which does not say of which domain
        known = passed if isinstance(passed, dict) else {}
        return Position(marker["step"], marker["sequences"], science, known, marker.get("memory", {}))


def kept(steps: list[int], keep: int, back: int, every: int | None) -> set[int]:
    """Which of the checkpoints at `steps` (ascending) stay: the newest `keep`; the first at or past each multiple of `every`,
    for good; and, so that a run can go back about `back` steps and up to `RUNGS` times as many, the first at or past each
    multiple of `back` from the newest of them that lies so far back on (0 keeps none for that).
    """
    wanted = set(steps[-keep:]) | (set(_anchors(steps, every)) if every else set())
    if back and steps:
        anchors = _anchors(steps, back)
        oldest = max((step for step in anchors if step <= steps[-1] - RUNGS * back), default=0)
        wanted |= {step for step in anchors if step >= oldest}
    return wanted


def _anchors(steps: list[int], apart: int) -> list[int]:
    firsts: dict[int, int] = {}
    for step in steps:
        firsts.setdefault(step // apart, step)
    return [step for number, step in firsts.items() if number > 0]


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _marker(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if {"step", "sequences", "science", "processes", "files"} <= set(found) else None
