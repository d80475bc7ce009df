"""The recipes of stages that train nothing and read no corpus: evaluate, calibrate, export."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lablib.specs.data import Ref, Slug, Task
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
        if not self.tasks and self.data is None:
            raise ValueError("give tasks, data (for held-out loss) or both")
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


class Export(Recipe):
    """Write a model as one plain Hugging Face folder (safetensors), checked by its logits."""

    stage: Literal["export"] = "export"
    model: ModelInput
    dtype: Literal["fp32", "bf16"] = "bf16"
