"""Traces on demand: `torch.profiler` on every rank for a few steps, because somebody asked while the run was going."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from lablib.runs import Recorder
from lablib.runs.traces import FOLDER, KIND, TOP
from lablib.specs import write_atomic
from lablib.train.distributed import World


class Tracer:
    """Records the next steps once it has begun; until then each step asks it one question."""

    def __init__(self, run: Recorder, world: World) -> None:
        """Traces go below the run's folder `lablib.runs.traces.FOLDER`."""
        self.run, self.world = run, world
        self._left, self._folder = 0, Path()
        self._profile: profile | None = None

    @property
    def busy(self) -> bool:
        """Whether a trace is being recorded."""
        return self._left > 0

    def begin(self, steps: int, first: int) -> None:
        """Record the next `steps` steps, of which `first` is the number of the first. Every rank calls it."""
        self._left, self._folder = steps, self.run.path / FOLDER / f"step-{first:08d}"
        cuda = self.world.device.type == "cuda"
        if cuda:
            torch.cuda.memory._record_memory_history(max_entries=100_000)
        self._profile = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
        self._profile.start()

    def stepped(self) -> None:
        """A step has ended; after the last one the trace is written and registered. Every rank calls it."""
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._finish()

    def end(self) -> None:
        """The run's steps are over: a trace that is not whole is written as far as it came. Every rank calls it."""
        if self._left > 0:
            self._left = 0
            self._finish()

    def _finish(self) -> None:
        recorded, self._profile = self._profile, None
        assert recorded is not None
        recorded.stop()
        problem = ""
        try:
            self._write(recorded)
        except (OSError, RuntimeError) as error:  # a run does not end because its trace could not be kept
            problem = f"rank {self.world.rank}: {type(error).__name__}: {error}"
        if self.world.device.type == "cuda":
            torch.cuda.memory._record_memory_history(enabled=None)
        problems = [text for text in self.world.collect(problem) if text]
        if problems:
            self.run.event("trace_failed", reason=problems[0])
        else:
            first = int(self._folder.name.rpartition("-")[2])
            self.run.artefact(f"trace-{first}", self._folder, kind=KIND)

    def _write(self, recorded: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = self._folder / f"rank-{self.world.rank}"
        recorded.export_chrome_trace(f"{stem}.json.gz")
        write_atomic(stem.with_suffix(".ops.json"), json.dumps(operators(recorded), indent=1))
        if self.world.device.type == "cuda":
            torch.cuda.memory._dump_snapshot(f"{stem}.memory.pickle")


def operators(recorded: Any) -> dict[str, Any]:
    """The `TOP` operators by their own time (on the device where there is one, else on the CPU), and the sum over all of them;
    milliseconds."""
    rows = [
        {"op": row.key, "calls": row.count, "cpu_ms": row.self_cpu_time_total / 1e3, "device_ms": row.self_device_time_total / 1e3}
        for row in recorded.key_averages()
    ]  # fmt: skip
    by = "device_ms" if any(row["device_ms"] for row in rows) else "cpu_ms"
    rows.sort(key=lambda row: -row[by])
    return {"by": by, "total_ms": sum(row[by] for row in rows), "ops": rows[:TOP]}
