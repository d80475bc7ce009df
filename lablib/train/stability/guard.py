"""`Guard`: watches the steps of a run, decides for all ranks, and remembers its decisions in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from lablib.runs import Recorder
from lablib.runs.documents import table
from lablib.specs import LabError, Stability, write_atomic
from lablib.train.checkpoint import Position
from lablib.train.distributed import World
from lablib.train.stability.detector import Detector
from lablib.train.stability.measures import attend_in_fp32, attention_scales, unusual_weights
from lablib.train.stability.playbook import Rewind, Spike, beyond, respond
from lablib.train.step import Outcome, Tried

K = TypeVar("K")
FILE = "stability.json"


class Guard:
    """The stability of one run. All ranks hold equal guards and call them alike."""

    def __init__(
        self, settings: Stability, run: Recorder, world: World, per_step: int, shifts: tuple[int, ...] = ()
    ) -> None:
        """`per_step` is sequences of a whole step over all ranks, `shifts` the sequences at which another mixture begins; earlier
        attempts' decisions are read from the run folder."""
        self.settings, self.run, self.world, self.per_step, self.shifts = settings, run, world, per_step, shifts
        self.detector = Detector(settings)
        self.rewinds = [_rewind(row) for row in world.from_main(self._read)]
        self._streak: list[int] = []
        self._doubt = False

    @property
    def rate(self) -> float:
        """Factor for the learning rate."""
        return self.rewinds[-1].rate if self.rewinds else 1.0

    @property
    def calm(self) -> bool:
        """Whether the last step was ordinary: no checkpoint is made while a spike is suspected."""
        return not self._streak

    def begin(self, sequence: int, per_step: int) -> int:
        """Where the step of `per_step` sequences that would begin at `sequence` reads its data, past what is skipped.

        A step in which another mixture begins makes the guard forget what was ordinary.
        """
        self.per_step = per_step
        first = beyond([rewind.skip for rewind in self.rewinds], sequence, self.per_step)
        if any(sequence <= shift < first + self.per_step for shift in self.shifts):
            self.detector.recall((), ())
        return first

    def doubts(self, loss: float, grad_norm: float) -> bool:
        """Whether a step is to be computed again before its update is made; one answer on all ranks."""
        self._doubt = self.world.any(bool(self.detector.surprise(loss, grad_norm)))
        return self._doubt and self.settings.recheck

    def observe(self, step: int, first: int, outcome: Outcome) -> Spike | None:
        """Judge the step that was just tried (counted from 1, reading from sequence `first`); a spike where it is confirmed."""
        if outcome.before is not None:
            self._tell_repeat(step, outcome.before, outcome)
            self._doubt = self.world.any(bool(self.detector.surprise(outcome.loss, outcome.grad_norm)))
        if not self._doubt:
            self._accept(outcome)
            return None
        why = self.detector.surprise(outcome.loss, outcome.grad_norm)
        bounds = self.detector.bounds()
        limits = {"loss_bound": bounds.loss, "grad_norm_bound": bounds.grad_norm}
        seen = {"loss": str(outcome.loss), "grad_norm": str(outcome.grad_norm), **limits}
        self.run.event("not_finite" if why == "not finite" else "surprise", at_step=step, why=why, first_sequence=first, **seen)  # fmt: skip
        refuses = self.settings.max_rewinds == 0
        if refuses and why != "not finite":
            self._accept(outcome)
            return None
        self._streak = self._streak or [step, first, 0]
        self._streak[2] += 1
        if self._streak[2] < self.settings.patience and not refuses:
            return None
        return Spike(why, self._streak[0], step, self._streak[1], first + self.per_step)

    def respond(
        self, spike: Spike, steps: Sequence[int], model: torch.nn.Module, whole: Callable[[int], bool] = bool
    ) -> Rewind:
        """Decide, write it down for good, and say so; `steps` and `whole` as for `playbook.respond`.

        Raises `LabError` where the budget of rewinds is spent, and on every rank where the decision cannot be written.
        """
        scales = self._together(attention_scales(model))
        widest = max(scales, key=scales.__getitem__, default=None)
        decided = respond(self.settings, self.rewinds, spike, steps, self.per_step, widest, whole)
        suspects = self._together(unusual_weights(model))
        self.rewinds.append(decided)
        self.world.from_main(self._write)
        self._streak = []
        told = {name: f"{ratio:.3g}" for name, ratio in suspects.items()}
        self.run.event("rewound", why=spike.why, suspects=told, **asdict(decided))
        self.run.note(deviations=[asdict(rewind) for rewind in self.rewinds])
        return decided

    def treat(self, model: torch.nn.Module) -> None:
        """Take the measures on the model that were decided; those taken already are left."""
        for layer in sorted({rewind.fp32_layer for rewind in self.rewinds if rewind.fp32_layer is not None}):
            if attend_in_fp32(model, layer):
                self.run.event("fp32_attention", layer=layer)

    def valid(self, marker: dict[str, Any]) -> bool:
        """Whether a checkpoint still counts: it was not made on a path that a later decision left."""
        known = marker.get("memory", {}).get("rewinds", 0)
        return all(marker["step"] <= rewind.to_step for rewind in self.rewinds[known:])

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps of the guard, as JSON."""
        seen = {"losses": list(self.detector.losses), "log_norms": list(self.detector.log_norms)}
        return {"rewinds": len(self.rewinds), **seen, "streak": self._streak}

    def recall(self, at: Position) -> None:
        """Take up what the checkpoint of `at` kept."""
        self.detector.recall(at.memory.get("losses", ()), at.memory.get("log_norms", ()))
        self._streak = list(at.memory.get("streak", ())) if at.memory.get("rewinds") == len(self.rewinds) else []

    def _accept(self, outcome: Outcome) -> None:
        self.detector.accept(outcome.loss, outcome.grad_norm)
        self._streak = []

    def _tell_repeat(self, step: int, before: Tried, outcome: Outcome) -> None:
        first = {"loss_first": str(before.loss), "grad_norm_first": str(before.grad_norm)}
        again = {"loss": str(outcome.loss), "grad_norm": str(outcome.grad_norm)}
        if not before.agrees(outcome):
            self.run.event("hardware", at_step=step, nodes=list(before.nodes), **first, **again)

    def _together(self, mine: dict[K, float]) -> dict[K, float]:
        """What all ranks found: pipeline stages hold different layers."""
        return {key: value for found in self.world.collect(mine) for key, value in found.items()}

    def _read(self) -> list[dict[str, Any]]:
        found = table(self.run.path / FILE, "rewinds")
        return [] if found is None else list(found["rewinds"])

    def _write(self) -> None:
        text = json.dumps({"rewinds": [asdict(one) for one in self.rewinds]}, indent=1)
        try:
            write_atomic(self.run.path / FILE, text)
        except OSError as error:
            raise LabError(f"{self.run.path / FILE} could not be written: {error}; checkpoints are untouched: free space and resume the run") from None  # fmt: skip


def _rewind(row: dict[str, Any]) -> Rewind:
    first, end = row["skip"]
    return Rewind(**{**row, "skip": (first, end)})
