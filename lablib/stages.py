"""`execute`: from a recipe to the stage that carries it out, imported only when it is needed."""

from __future__ import annotations

from importlib import import_module

from lablib.runs import Recorder
from lablib.specs import AnyRecipe

_STAGES = {
    "prepare": ("lablib.data.prepare", "prepare"),
    "pretrain": ("lablib.train.pretrain", "pretrain"),
    "sft": ("lablib.posttrain.sft", "sft"),
    "preference": ("lablib.posttrain.preference", "preference"),
    "grpo": ("lablib.posttrain.grpo", "grpo"),
    "evaluate": ("lablib.evals.evaluate", "evaluate"),
    "export": ("lablib.models.export", "export_model"),
}


def execute(recipe: AnyRecipe, run: Recorder) -> None:
    """Carry out a recipe in this process, writing into `run`; every rank of a distributed stage calls it."""
    module, function = _STAGES[recipe.stage]
    getattr(import_module(module), function)(recipe, run)
