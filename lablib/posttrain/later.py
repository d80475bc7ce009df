"""Stages that can be planned before they can be run: they refuse, with what to do instead."""

from __future__ import annotations

from lablib.posttrain import settings
from lablib.runs import Recorder
from lablib.specs import PPO, LabError, Recipe, Reward
from lablib.specs.recipes import PostTrain

INSTEAD = {"reward": "preference", "ppo": "grpo"}


def refuse_planned_only(recipe: Recipe) -> None:
    """Raises `LabError` for a recipe, or a setting of one, that only the planner knows yet, before a run is made of it."""
    if recipe.stage in INSTEAD:
        raise LabError(f"stage={recipe.stage!r}: its trainer comes later, only the planner knows it; use estimate, or train with stage={INSTEAD[recipe.stage]!r}")  # fmt: skip
    if isinstance(recipe, PostTrain):
        settings.check(recipe)


def reward(recipe: Reward, run: Recorder) -> None:
    """Raises `LabError`: reward models are planned, not trained yet."""
    refuse_planned_only(recipe)


def ppo(recipe: PPO, run: Recorder) -> None:
    """Raises `LabError`: PPO is planned, not trained yet."""
    refuse_planned_only(recipe)
