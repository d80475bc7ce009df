"""LLM Lab: the recipe you price is the recipe you run, and the report shows both."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lablib.plan import estimate
from lablib.runs import Run
from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    Accelerator,
    Calibrate,
    Cluster,
    DoReMi,
    Evaluate,
    Export,
    LabError,
    LoRA,
    Merge,
    Midtrain,
    Mixture,
    ModelSpec,
    Optimizer,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Ref,
    Reward,
    Schedule,
    Synthesize,
    Task,
    catalog,
)

if TYPE_CHECKING:
    from lablib.plan.reverse import plan_for
    from lablib.plan.search import search_layouts

__all__ = [
    "GRPO",
    "PPO",
    "SFT",
    "Accelerator",
    "Calibrate",
    "Cluster",
    "DoReMi",
    "Evaluate",
    "Export",
    "LabError",
    "LoRA",
    "Merge",
    "Midtrain",
    "Mixture",
    "ModelSpec",
    "Optimizer",
    "Parallelism",
    "Preference",
    "Prepare",
    "Pretrain",
    "Ref",
    "Reward",
    "Run",
    "Schedule",
    "Synthesize",
    "Task",
    "catalog",
    "estimate",
    "plan_for",
    "search_layouts",
]
_LATER = {"plan_for": "lablib.plan.reverse", "search_layouts": "lablib.plan.search"}
"""Names whose modules are imported when first used."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
