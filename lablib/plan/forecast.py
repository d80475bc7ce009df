"""The loss curve that a pretraining run is expected to take, registered before it starts.

A law L(N, D) gives the loss after D tokens *once the learning rate has decayed*; while a WSD schedule is still at its
peak the loss may lie above that by the law's `stable` share, and before anything is learnt it is ln(vocabulary).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lablib.plan.laws import EPOCH, LADDER, Law
from lablib.plan.params import count
from lablib.specs import Midtrain, Pretrain, Recipe, Ref, Spec
from lablib.specs.paths import runs_root

POINTS = 80
Z = 1.2816
"""Standard deviations of an 80 % band."""
RUN = 0.025
"""Spread of log loss between runs that differ in seed, learning rate or schedule from the law's."""
BEYOND = 0.03
"""What a factor of e beyond the law's sizes or tokens adds to that spread; four of them and the law says nothing."""
REACH = 4.0
STRANGE = 0.15
"""Spread of log loss for a corpus or scale that the law was not fitted on."""


class Point(NamedTuple):
    """The forecast at one step."""

    step: int
    tokens: int
    low: float
    mid: float
    high: float


class Forecast(Spec):
    """Equally long lists, first step to last: nats a token with an 80 % band."""

    stream: str = "train"
    metric: str = "loss"
    step: tuple[int, ...]
    tokens: tuple[int, ...]
    low: tuple[float, ...]
    mid: tuple[float, ...]
    high: tuple[float, ...]
    basis: str
    """The law, the data it holds for, and its source, in words."""

    @property
    def points(self) -> tuple[Point, ...]:
        """The same, point by point."""
        return tuple(map(Point, self.step, self.tokens, self.low, self.mid, self.high))

    @property
    def final(self) -> Point:
        """The forecast for the last step."""
        return self.points[-1]


def forecast(recipe: Recipe, root: Path | None = None) -> Forecast | None:
    """The loss curve of a Pretrain recipe; None for a stage whose loss no law describes.

    `root` is the folder of runs in which the recipe's data is looked up.
    """
    if not isinstance(recipe, Pretrain) or isinstance(recipe, Midtrain):
        return None
    law, spread, basis = _law(recipe, root)
    steps = np.unique(np.geomspace(1, recipe.steps, POINTS).round().astype(int))
    tokens = _tokens(recipe, steps)
    mid = curve(recipe, law, steps)
    # Early steps depend on initialisation and warm-up more than on any law: the band opens towards the start.
    wide = np.sqrt(spread**2 + RUN**2 + (0.25 * np.exp(-tokens / law.tokens[0])) ** 2)
    low, high = mid * np.exp(-Z * wide), mid * np.exp(Z * wide)
    return Forecast(
        step=tuple(steps.tolist()), tokens=tuple(tokens.tolist()), basis=basis,
        **{name: tuple(np.round(values, 4).tolist()) for name, values in (("low", low), ("mid", mid), ("high", high))},
    )  # fmt: skip


def curve(recipe: Pretrain, law: Law, steps: np.ndarray) -> np.ndarray:
    """Expected loss before each of `steps` updates, nats a token."""
    settled = law.loss(count(recipe.model).total, _tokens(recipe, steps))
    done = steps / recipe.steps
    start = 1 - recipe.schedule.decay if recipe.schedule.kind == "wsd" else recipe.schedule.warmup
    decayed = np.clip((done - start) / max(1e-9, 1 - start), 0.0, 1.0)
    return np.minimum(math.log(recipe.model.vocab), settled * (1 + law.stable * (1 - decayed)))


def _tokens(recipe: Pretrain, steps: np.ndarray) -> np.ndarray:
    cut = recipe.cut
    return np.array([cut.before(step) for step in steps.tolist()])


def _law(recipe: Pretrain, root: Path | None) -> tuple[Law, float, str]:
    """(law, spread of log loss, basis): the ladder's where corpus, vocabulary and scale are its own, else Epoch's, whose
    data nobody has, with the spread of what is not known."""
    far = LADDER.outside(count(recipe.model).total, recipe.cut.tokens)
    if _corpus(recipe, root) == LADDER.corpus and recipe.model.vocab == LADDER.vocab and far < REACH:
        return LADDER, LADDER.spread + BEYOND * far, f"{LADDER.name}: {LADDER.data}; {LADDER.source}"
    why = "this run's data is another, so only the shape is borrowed"
    return EPOCH, STRANGE, f"{EPOCH.name}: {EPOCH.data}; {EPOCH.source}; {why}"


def _corpus(recipe: Pretrain, root: Path | None) -> str | None:
    """The corpus that the recipe trains on, None where nobody knows."""
    if not isinstance(recipe.data, Ref):
        return recipe.data
    file = (root or runs_root()) / recipe.data.run / "recipe.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8")).get("corpus")
    return found if isinstance(found, str) else None
