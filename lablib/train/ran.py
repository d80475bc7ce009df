"""What really computes a run, for its manifest: the recipe says what was asked for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lablib.models.attention import attention_used
from lablib.models.float8 import RECIPE
from lablib.specs import Pretrain

_RULES = {"adamw": "torch.optim.AdamW, fused"}


def ran(recipe: Pretrain, model: Any, device: torch.device) -> dict[str, Any]:
    """Attention's implementation, the loss, precisions, compilation and the optimiser, as the built model has them."""
    one = recipe.parallelism
    sharded = one.dp * one.cp > 1
    half = recipe.precision != "fp32"
    linears = [type(module).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)]
    found: dict[str, Any] = {
        "attention": attention_used(model, device),
        "cross_entropy": recipe.cross_entropy,
        "precision": {
            "compute": "fp32" if not half else "bf16 gathered by FSDP2" if sharded else "bf16 under autocast",
            "master": str(next(model.parameters()).dtype).removeprefix("torch."),
            "reduce": recipe.reduce_dtype if sharded else None,
        },
        "compile": bool(recipe.compile),
        "recompute": recipe.recompute,
        "optimizer": _RULES.get(recipe.optimizer.kind, f"lablib.train.rules, {recipe.optimizer.kind}"),
    }
    if eight := linears.count("Float8Linear"):
        found["float8"] = {"recipe": RECIPE, "linears": eight, "of": len(linears), "torchao": _version("torchao")}
    if recipe.attention.startswith("flash"):
        found["attention"]["version"] = _version("flash-attn" if recipe.attention.endswith("2") else "flash-attn-3")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
