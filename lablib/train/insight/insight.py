"""`Insight`: the one object that the loop tells of its steps, and asks for what belongs on a logged line beside the meter's."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from lablib.data.loader import IGNORED
from lablib.models.layout import Place
from lablib.runs import Recorder, Run
from lablib.specs import Pretrain
from lablib.train.batches import Batch
from lablib.train.distributed import World
from lablib.train.insight.garbage import collect_young
from lablib.train.insight.layers import Layers, watch
from lablib.train.insight.routers import Collapse, measures, summary
from lablib.train.insight.stragglers import LayerClock, Stragglers
from lablib.train.insight.tracing import Tracer
from lablib.train.meter import Meter
from lablib.train.step import Outcome


class Insight:
    """Every rank holds one and calls it alike. Steps that are not logged pay for one addition; the others for one gather of
    four numbers a rank."""

    def __init__(
        self,
        recipe: Pretrain,
        run: Recorder,
        world: World,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lengths: torch.Tensor,
    ) -> None:
        """`model` is what this rank holds, `lengths` bytes of text of each token id, int64 (vocab,)."""
        self.recipe, self.run, self.world, self.lengths = recipe, run, world, lengths
        places = [Place.of(rank, recipe.parallelism) for rank in range(world.size)]
        self._speaks = places[world.rank].speaks
        self._hosts = world.collect(socket.gethostname())
        self._clock = LayerClock(model, world.device) if world.size > 1 and not recipe.compile else None
        self._stragglers = Stragglers([place.pp_rank for place in places])
        self._tracer = Tracer(run, world)
        self._layers = Layers(model, optimizer) if recipe.inspect_every else None
        self._collapse = Collapse()
        cluster = Run.open(run.path).cluster
        self._price = cluster.price_per_gpu_hour if cluster else None
        self._gpus = Run.open(run.path).order.gpus(recipe.gpus)
        self._first: tuple[int, float] | None = None

    def asked_to_stop(self, step: int) -> bool:
        """Whether the run is to save and return before `step`, one answer on all ranks; a trace that was asked for begins."""
        steps = 0 if self._tracer.busy else self.run.trace_requested
        asked = torch.tensor([float(self.run.stop_requested), float(steps)], device=self.world.device)
        stop, steps = (int(value) for value in self.world.sum(asked).tolist())
        if steps and not stop:
            self._tracer.begin(steps, step)
        return bool(stop)

    @contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """Around the work of `step`, counted from 1: measures what a logged step is to tell."""
        if self._first is None or step <= self._first[0]:  # the run begins, or has gone back to before where it began
            self._first = step - 1, time.monotonic()
        armed = [part for part in (self._clock, self._looks(step)) if part is not None and self._logged(step)]
        for part in armed:
            part.arm()
        try:
            yield
        finally:
            for part in armed:
                part.disarm()
        self._tracer.stepped()

    def end(self) -> None:
        """The last step is done. Every rank calls it."""
        self._tracer.end()

    def report(self, step: int, meter: Meter, batches: Sequence[Batch], outcome: Outcome) -> dict[str, float]:
        """bits_per_byte, eta_seconds, with a price dollars, with several ranks straggle (largest of their ratios), and with
        experts what `summary` has, of the logged `step`. Names stragglers and collapsing routers as events. Every rank calls it."""
        targets, text = self._read(batches)
        compute = self._clock.seconds if self._clock else 0.0
        own = torch.tensor([targets, text, meter.last_waited, compute], dtype=torch.float64, device=self.world.device)
        targets_of, bytes_of, waits, works = self.world.gather(own).T.tolist()
        row = {"bits_per_byte": outcome.loss * sum(targets_of) / math.log(2) / sum(bytes_of)} if sum(bytes_of) else {}
        row |= {**self._eta(step), **self._dollars()}
        if self.world.size > 1:
            row["straggle"] = self._compare(step, waits, works, meter.last_seconds)
        if outcome.routed is not None:
            row |= self._tell_routers(step, outcome.routed)
        if self._looks(step):
            self._tell_layers(step, outcome)
        collect_young()
        return row

    def _logged(self, step: int) -> bool:
        return step % self.recipe.log_every == 0 or step == self.recipe.steps

    def _looks(self, step: int) -> Layers | None:
        every = self.recipe.log_every * (self.recipe.inspect_every or 1)
        return self._layers if step % every == 0 or step == self.recipe.steps else None

    def _read(self, batches: Sequence[Batch]) -> tuple[int, int]:
        """Targets and the bytes of text that they stand for, where this rank's count in sums."""
        if not self._speaks:
            return 0, 0
        labels = torch.cat([batch.labels.flatten() for batch in batches]).cpu()
        counted = labels[labels != IGNORED]
        return len(counted), int(self.lengths[counted].sum())

    def _eta(self, step: int) -> dict[str, float]:
        assert self._first is not None
        before, begun = self._first
        return {"eta_seconds": (self.recipe.steps - step) * (time.monotonic() - begun) / (step - before)}

    def _dollars(self) -> dict[str, float]:
        if self._price is None:
            return {}
        return {"dollars": self.run.seconds / 3600 * self._gpus * self._price}

    def _compare(self, step: int, waits: list[float], works: list[float], seconds: float) -> float:
        named, largest = self._stragglers.observe(waits, works, seconds)
        for slow in named:
            self.run.event("straggler", at_step=step, rank=slow.rank, node=self._hosts[slow.rank], ratio=slow.ratio, part=slow.part)  # fmt: skip
        return largest

    def _tell_layers(self, step: int, outcome: Outcome) -> None:
        assert self._layers is not None
        clipped = max(1.0, outcome.grad_norm / self.recipe.optimizer.grad_clip)
        row: dict[str, Any] = watch(self._layers, self.world, clipped)
        self.run.log(step, "layers", **row)

    def _tell_routers(self, step: int, routed: torch.Tensor) -> dict[str, float]:
        row: dict[str, Any] = measures(routed)
        self.run.log(step, "routers", **row)
        for found in self._collapse.observe(row):
            self.run.event("router_collapse", at_step=step, **asdict(found))
        return summary(row)
