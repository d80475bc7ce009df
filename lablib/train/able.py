"""What the trainer can run of what a recipe can say: asked before a run is queued, without torch, and again when it starts."""

from __future__ import annotations

from typing import Any, get_args

from lablib.specs import LabError, ModelSpec, Parallelism, Pretrain
from lablib.specs.recipe import OptimizerKind


def check(recipe: Pretrain) -> None:
    """Raises `LabError` for what the trainer cannot do, before anything is loaded."""
    check_layout(recipe.model, recipe.parallelism)
    for name, value, done in _settings(recipe):
        if value not in done:
            raise LabError(f"{name}={value!r}: the trainer does not do this yet, only the planner does; use {' or '.join(map(repr, done))}")  # fmt: skip
    if recipe.document_mask and recipe.model.ssm:
        raise LabError("document_mask=True: Mamba layers carry their state across documents, which the trainer cannot cut yet; set document_mask=False")  # fmt: skip


def _settings(recipe: Pretrain) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """(field, value, what the trainer can run) of everything that can be planned before it can be trained."""
    return [
        ("precision", recipe.precision, ("bf16", "fp32")),
        ("recompute", recipe.recompute, ("none", "selective", "full")),
        (
            "optimizer.kind",
            recipe.optimizer.kind,
            tuple(kind for kind in get_args(OptimizerKind) if kind != "adamw-8bit"),
        ),
        ("cross_entropy", recipe.cross_entropy, ("full",)),
        ("offload", recipe.offload, ("none",)),
        ("parallelism.sequence_parallel", recipe.parallelism.sequence_parallel, (False,)),
    ]


def check_layout(model: ModelSpec, parallelism: Parallelism) -> None:
    """Raises `LabError` for a layout that this model or this version cannot run, with what to change."""
    for name in ("heads", "kv_heads", "ffn"):
        size = getattr(model, name)
        if size % parallelism.tp:
            raise LabError(f"parallelism.tp={parallelism.tp} does not divide the model's {name}={size}; use a tp that divides {model.heads} heads, {model.kv_heads} kv_heads and ffn {model.ffn}")  # fmt: skip
