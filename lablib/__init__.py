"""LLM Lab: the recipe you price is the recipe you run, and the report shows both."""

from lablib.plan import estimate
from lablib.runs import Run
from lablib.specs import (
    GRPO,
    SFT,
    Accelerator,
    Cluster,
    Evaluate,
    Export,
    LabError,
    LoRA,
    Mixture,
    ModelSpec,
    Optimizer,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Ref,
    Schedule,
    Task,
    catalog,
)

__all__ = [
    "GRPO",
    "SFT",
    "Accelerator",
    "Cluster",
    "Evaluate",
    "Export",
    "LabError",
    "LoRA",
    "Mixture",
    "ModelSpec",
    "Optimizer",
    "Parallelism",
    "Preference",
    "Prepare",
    "Pretrain",
    "Ref",
    "Run",
    "Schedule",
    "Task",
    "catalog",
    "estimate",
]
