"""TRL's settings from a recipe: every one that matters is written out, and an unknown one is an error."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

from lablib.runs import Recorder
from lablib.specs import LabError
from lablib.specs.recipes import PostTrain

SAVES = 5
"""Checkpoints of a run whose recipe does not say how many."""


def build(kind: type, values: dict[str, Any]) -> Any:
    """An instance of one of TRL's config dataclasses. Raises `LabError` for a field that the installed one lacks."""
    unknown = set(values) - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise LabError(f"{kind.__name__} of trl {version('trl')} has no {', '.join(sorted(unknown))}; install the tested version from the constraints file")  # fmt: skip
    return kind(**values)


def accumulation(recipe: PostTrain) -> int:
    """Micro-batches of one optimiser step on each rank. Raises `LabError` where `batch_size` is not a whole number of them."""
    layout = recipe.parallelism
    if layout.gpus != layout.dp_replicate:
        raise LabError(f"parallelism={layout}: post-training is laid out by dp_replicate only (each rank holds the whole model); set the others to 1")  # fmt: skip
    together = layout.micro_batch_size * layout.dp
    if recipe.batch_size % together:
        raise LabError(f"batch_size={recipe.batch_size} is not a multiple of micro_batch_size×dp_replicate={together}; {max(1, recipe.batch_size // together) * together} is")  # fmt: skip
    return recipe.batch_size // together


def check(recipe: PostTrain) -> None:
    """Raises `LabError` for what the trainer cannot do yet, before anything is loaded."""
    for name, value, done in _settings(recipe):
        if value not in done:
            raise LabError(f"{name}={value!r}: the trainer does not do this yet, only the planner does; use {' or '.join(map(repr, done))}")  # fmt: skip


def _settings(recipe: PostTrain) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """(field, value, what the trainer can run) of everything that can be planned before it can be trained."""
    return [
        ("precision", recipe.precision, ("bf16", "fp32")),
        ("recompute", recipe.recompute, ("none",)),
        ("compile", recipe.compile, (False,)),
        ("cross_entropy", recipe.cross_entropy, ("full",)),
        ("offload", recipe.offload, ("none",)),
        ("optimizer", recipe.optimizer, ("adamw",)),
        ("lora.base", recipe.lora.base if recipe.lora else "fp32", ("fp32",)),
        ("packing", getattr(recipe, "packing", False), (False,)),
        ("precompute_reference", getattr(recipe, "precompute_reference", False), (False,)),
        ("sampler", getattr(recipe, "sampler", "shared"), ("shared",)),
        ("sampler_tp", getattr(recipe, "sampler_tp", 1), (1,)),
        ("engine", getattr(recipe, "engine", "transformers"), ("transformers",)),
    ]


def common(recipe: PostTrain, run: Recorder, schedule: str) -> dict[str, Any]:
    """What every stage's config says: budget, batch, AdamW, precision, checkpoints, and no report to anyone."""
    import torch

    return {
        "output_dir": str(run.folder("checkpoints")),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.parallelism.micro_batch_size,
        "gradient_accumulation_steps": accumulation(recipe),
        "gradient_checkpointing": False,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": round(recipe.warmup * recipe.steps),
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "seed": recipe.seed,
        "bf16": recipe.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": recipe.log_every,
        "logging_nan_inf_filter": False,  # it would hide the step at which a run broke
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_every or max(1, -(-recipe.steps // SAVES)),
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
    }
