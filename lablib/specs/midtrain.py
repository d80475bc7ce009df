"""`Midtrain`: kinds with their usual settings, and replay of the old mixture."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.data import Mixture, Ref
from lablib.specs.mixtures import Curriculum
from lablib.specs.posttrain import ModelInput
from lablib.specs.recipes import Pretrain

MidtrainKind = Literal["anneal", "continue", "extend"]
"""anneal: a better mixture under a decaying rate; continue: a new domain, beside some of the old mixture; extend: longer
sequences."""
GENTLE = 0.1
"""Peak rate of training on a new domain or at a new length, as a share of pretraining's (the guide, §11.3)."""
PEAK = 3e-4
"""`Optimizer`'s usual rate."""
ANNEAL = 0.15
"""Share of all tokens that annealing takes: 10 to 20 % (Llama 3 and DeepSeek by the guide, §3; arXiv 2405.18392 §3)."""
EXTEND_TOKENS = 10**9, 10**10
"""Training at a new length takes 1 to 10 billion tokens (the guide, §11.2)."""
REPLAY_SHARES, REPLAY = (0.1, 0.3), 0.2
"""Share of the old mixture that keeps a model from forgetting (the guide, §11.3), and the usual one between."""
DOMAIN_PASSES = 0.1, 1.0
"""Tokens to read of a new domain, in passes over what there is of it (the guide, §11.3)."""


class Replay(Spec):
    """Some of what the model was trained on before, so that it is not forgotten."""

    mixture: Mixture
    """The old mixture, over the domains of the same data."""
    share: float = Field(default=REPLAY, ge=0, lt=1)
    """Of all tokens."""

    def blend(self, new: Mixture) -> Mixture:
        """`new` with `share` of the old mixture beside it, under the stricter epoch limit."""
        names = dict.fromkeys((*new.weights, *self.mixture.weights))
        shares = {
            name: (1 - self.share) * new.weights.get(name, 0.0) + self.share * self.mixture.weights.get(name, 0.0)
            for name in names
        }
        return Mixture(weights=shares, max_epochs=min(new.max_epochs, self.mixture.max_epochs))


def usual_settings(kind: MidtrainKind) -> dict[str, Any]:
    """Settings of a kind where a recipe gives none of its own.

    Annealing goes on at the rate that the stable phase had and decays from its first step to its last; the others warm up
    to `GENTLE` of the usual peak.
    """
    if kind == "anneal":
        return {"schedule": {"kind": "wsd", "warmup": 0.0, "decay": 1.0}}
    gentle = {"optimizer": {"learning_rate": GENTLE * PEAK}}
    return gentle if kind == "continue" else {**gentle, "tokens": EXTEND_TOKENS[0]}


class Midtrain(Pretrain):
    """Train a model further, by the same loop: anneal it, teach it a new domain, or lengthen its sequences.

    What the recipe leaves out is as its kind has it (`usual_settings`); `lablib.specs.further` makes one from
    the recipe that made the model. Held-out loss is measured before the first step too.
    """

    stage: Literal["midtrain"] = "midtrain"  # type: ignore[assignment]
    kind: MidtrainKind = "anneal"
    start: ModelInput
    """The model to go on from; it must have the shape that `model` says."""
    from_step: int | None = Field(default=None, gt=0)
    """A checkpoint of the run that `start` refers to, instead of the model that it ended with: weights and optimiser."""
    replay: Replay | None = None
    """Some of the old mixture, read beside `mixture`; held-out loss is then told of the old and the new one."""

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and (missing := [name for name in ("model", "start") if name not in data]):
            raise ValueError(f"{' and '.join(missing)} missing: start is the model to go on from, model its shape as in the recipe.json of the run that made it; lablib.specs.further writes both")  # fmt: skip
        if isinstance(data, dict) and data.get("kind", "anneal") in get_args(MidtrainKind):
            usual = usual_settings(data.get("kind", "anneal"))
            partly = {name: {**value, **data[name]} for name, value in usual.items() if isinstance(value, dict) and isinstance(data.get(name), dict)}  # fmt: skip
            return {**usual, **data, **partly}
        return data

    @model_validator(mode="after")
    def _can_go_on(self) -> Self:
        if self.from_step is not None and not isinstance(self.start, Ref):
            raise ValueError(f"from_step={self.from_step}: start={self.start!r} is a model; refer to the run that wrote the checkpoint, run.model")  # fmt: skip
        if self.replay and not (isinstance(self.mixture, Mixture) and self.mixture.weights and self.replay.mixture.weights):  # fmt: skip
            raise ValueError("replay: mixture and replay.mixture must both name the weights of their domains")
        return self

    @property
    def blend(self) -> Mixture | Curriculum | Ref:
        """The mixture with the replayed one beside it."""
        return self.replay.blend(self.mixture) if self.replay and isinstance(self.mixture, Mixture) else self.mixture

    @property
    def sides(self) -> dict[str, Mixture]:
        """What held-out loss is told of apart, by name."""
        whole = isinstance(self.mixture, Mixture)
        return {"new": self.mixture, "old": self.replay.mixture} if self.replay and whole else {}  # type: ignore[dict-item]
