"""Stages that can be planned before they can be run: they refuse, with what to do instead."""

from __future__ import annotations

from lablib.runs import Recorder
from lablib.specs import PPO, Reward


def reward(recipe: Reward, run: Recorder) -> None:
    """Raises `LabError`: reward models are planned, not trained yet."""
    _refuse(recipe)


def ppo(recipe: PPO, run: Recorder) -> None:
    """Raises `LabError`: PPO is planned, not trained yet."""
    _refuse(recipe)


def _refuse(recipe: Reward | PPO) -> None:
    from lablib.stages import refuse_planned_only

    refuse_planned_only(recipe)
