"""The recipes of stages that train nothing and read no corpus: evaluate, calibrate, merge, export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lablib.specs.data import Ref, Slug, Task
from lablib.specs.needle import Needle
from lablib.specs.posttrain import ModelInput
from lablib.specs.recipe import Recipe
from lablib.specs.units import Count


class Evaluate(Recipe):
    """Score models on the same items, and compare each with the baseline item by item."""

    stage: Literal["evaluate"] = "evaluate"
    models: dict[Slug, ModelInput] = Field(min_length=1)
    """Label → model, in the order of the chain."""
    tasks: tuple[Task, ...] = ()
    data: Ref | None = None
    """A Prepare run's data: adds held-out bits per byte."""
    eval_tokens: Count = 65_536
    needle: Needle | None = None
    """Adds a task for each of its lengths: what a model finds again in a long text."""
    max_new_tokens: int = Field(default=64, gt=0)
    batch_size: int = Field(default=32, gt=0)
    baseline: str = ""
    """Label that the others are compared with; defaults to the first."""
    samples: int = Field(default=0, ge=0)
    """Free continuations of held-out text to show in the report."""

    @model_validator(mode="before")
    @classmethod
    def _first_is_baseline(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and not data.get("baseline")
            and isinstance(data.get("models"), dict)
            and data["models"]
        ):
            return {**data, "baseline": next(iter(data["models"]))}
        return data

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.baseline not in self.models:
            raise ValueError(f"baseline={self.baseline!r} is not one of the models {sorted(self.models)}")
        if not self.tasks and self.data is None and self.needle is None:
            raise ValueError("give tasks, data (for held-out loss), needle, or several of them")
        return self


class Calibrate(Recipe):
    """Measure the node that the job gets: matmuls, memory, a few training steps; the planner's constants come of it."""

    stage: Literal["calibrate"] = "calibrate"

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.gpus > 1:
            raise ValueError(
                f"parallelism takes {self.gpus} processes; the probe measures one accelerator: leave it out"
            )
        return self


class Merge(Recipe):
    """Average models of one shape (arXiv 2203.05482), or checkpoints of a run's stable phase (arXiv 2405.18392 §4)."""

    stage: Literal["merge"] = "merge"
    models: tuple[ModelInput, ...] = Field(min_length=1)
    """In the order in which they were trained; tokenizer and config are the last one's."""
    steps: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Checkpoints (`Pretrain.permanent_every` keeps them) of the one run that `models` refers to, instead of its model."""
    average: Literal["uniform", "ema"] = "uniform"
    decay: float = Field(default=0.8, ge=0, lt=1)
    """Of "ema": mean ← decay·mean + (1 - decay)·next, beginning at the first."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.steps and (len(self.models) > 1 or not isinstance(self.models[0], Ref)):
            raise ValueError(f"steps={self.steps}: give the one run that wrote them, models=(run.model,)")
        if tuple(sorted(set(self.steps))) != self.steps:
            raise ValueError(f"steps={self.steps} must rise, each once")
        if self.count < 2:
            raise ValueError("there is one model to average; give several models, or one run's model and steps")
        if self.gpus > 1:
            raise ValueError(f"parallelism takes {self.gpus} processes; merging is one process' work: leave it out")
        return self

    @property
    def count(self) -> int:
        """How many are averaged."""
        return len(self.steps or self.models)

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each in the average, summing to 1: equal, or as an exponential mean from the first on has them."""
        if self.average == "uniform":
            return (1 / self.count,) * self.count
        later = [(1 - self.decay) * self.decay**age for age in range(self.count - 2, -1, -1)]
        return (self.decay ** (self.count - 1), *later)


class Export(Recipe):
    """Write a model as one plain Hugging Face folder (safetensors), checked by its logits."""

    stage: Literal["export"] = "export"
    model: ModelInput
    dtype: Literal["fp32", "bf16"] = "bf16"
