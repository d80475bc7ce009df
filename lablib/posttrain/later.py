"""Stages that can be planned before they can be run: they refuse, with what to do instead."""

from __future__ import annotations

from lablib.runs import Recorder
from lablib.specs import PPO, LabError, Recipe, Reward

INSTEAD = {"reward": "preference", "ppo": "grpo"}


def refuse_planned_only(recipe: Recipe) -> None:
    """Raises `LabError` for a recipe that only the planner knows yet, before a run is made of it."""
    if recipe.stage in INSTEAD:
        raise LabError(f"stage={recipe.stage!r}: its trainer comes later, only the planner knows it; use estimate, or train with stage={INSTEAD[recipe.stage]!r}")  # fmt: skip


def reward(recipe: Reward, run: Recorder) -> None:
    """Raises `LabError`: reward models are planned, not trained yet."""
    refuse_planned_only(recipe)


def ppo(recipe: PPO, run: Recorder) -> None:
    """Raises `LabError`: PPO is planned, not trained yet."""
    refuse_planned_only(recipe)
