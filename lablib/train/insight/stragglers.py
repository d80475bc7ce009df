"""Which rank holds the others up.

All ranks of a synchronous job take the same time for a step: they wait for the slowest at every collective. So a rank is
timed where it works alone: from the step's beginning until its batches are there, and inside the parts of its decoder layers,
between which FSDP gathers weights. Tensor-, expert- and context-parallel ranks also meet inside those parts: of such a group
the node is told, not the rank. Stages of a pipeline hold other layers, so a rank is compared with those of its own stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from lablib.models.decoder import decoder_layers

SLOWER = 1.3
"""Times the median of the other ranks from which a rank is slow: MegaScale's slow machines lie 10 % off (arXiv 2402.15627 §5),
which single steps do not tell from noise."""
WEIGHS = 0.05
"""Share of the step that the excess must be: a loader that takes 2 ms where others take 1 ms holds nobody up."""
PATIENCE = 5
"""Measured steps in a row after which a slow rank is named."""


@dataclass(frozen=True)
class Slow:
    """A rank that is persistently slower than its peers."""

    rank: int
    ratio: float
    """Its own time over the median of the others'."""
    part: str
    """"data" or "compute": where most of its excess is."""


class LayerClock:
    """Times the parts of a rank's decoder layers in the forward pass of one step; between steps it costs nothing."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        """`model` is this rank's own, not compiled."""
        self._parts = [part for layer in decoder_layers(model).values() for part in layer.children()]
        self._cuda = device.type == "cuda"
        self._hooks: list[Any] = []
        self._begun: dict[int, Any] = {}
        self._spans: list[tuple[Any, Any]] = []

    def arm(self) -> None:
        """Time from now on."""
        self._begun, self._spans = {}, []
        for part in self._parts:
            self._hooks.append(part.register_forward_pre_hook(self._begin))
            self._hooks.append(part.register_forward_hook(self._end))

    def disarm(self) -> None:
        """Time no more; may be called twice."""
        while self._hooks:
            self._hooks.pop().remove()

    @property
    def seconds(self) -> float:
        """What was timed since `arm`. On CUDA the device must have come so far."""
        if self._cuda:
            return sum(begun.elapsed_time(ended) for begun, ended in self._spans) / 1e3
        return float(sum(ended - begun for begun, ended in self._spans))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _begin(self, module: torch.nn.Module, _: Any) -> None:
        self._begun[id(module)] = self._now()

    def _end(self, module: torch.nn.Module, _: Any, __: Any) -> None:
        self._spans.append((self._begun[id(module)], self._now()))


def ratios(own: Sequence[float], stages: Sequence[int]) -> list[float]:
    """Each rank's seconds over the median of the other ranks of its pipeline stage; 1 where there are none."""
    peers = [[s for other, s in enumerate(own) if other != rank and stages[other] == stages[rank]] for rank in range(len(own))]  # fmt: skip
    return [mine / median(others) if others and median(others) > 0 else 1.0 for mine, others in zip(own, peers, strict=True)]  # fmt: skip


class Stragglers:
    """Remembers how long each rank has been slow. All ranks may hold one and feed it alike."""

    def __init__(self, stages: Sequence[int]) -> None:
        """`stages` is the pipeline stage of each rank."""
        self.stages, self._streaks = stages, [0] * len(stages)

    def observe(self, data: Sequence[float], compute: Sequence[float], step_seconds: float) -> tuple[list[Slow], float]:
        """Those that have just become stragglers, and the largest ratio of any rank.

        `data` and `compute` are each rank's seconds of waiting for its own batches and inside its layers. One that recovers
        and becomes slow again is named again.
        """
        own = [waited + worked for waited, worked in zip(data, compute, strict=True)]
        found, told = ratios(own, self.stages), []
        for rank, ratio in enumerate(found):
            slow = ratio > SLOWER and own[rank] * (1 - 1 / ratio) > WEIGHS * step_seconds
            self._streaks[rank] = self._streaks[rank] + 1 if slow else 0
            if self._streaks[rank] == PATIENCE:
                told.append(Slow(rank, ratio, self._part(rank, data, compute)))
        return told, max(found)

    def _part(self, rank: int, data: Sequence[float], compute: Sequence[float]) -> str:
        peers = [other for other, stage in enumerate(self.stages) if other != rank and stage == self.stages[rank]]
        excess = {
            name: seconds[rank] - median(seconds[peer] for peer in peers)
            for name, seconds in (("data", data), ("compute", compute))
        }
        return max(excess, key=excess.__getitem__)
