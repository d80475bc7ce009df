"""Stages that can be planned before they can be run: each refuses in one sentence."""

from __future__ import annotations

from lablib.runs import Recorder
from lablib.specs import PPO, LabError, Reward


def reward(recipe: Reward, run: Recorder) -> None:
    """Raises `LabError`: reward models are planned, not trained yet."""
    raise LabError("stage='reward': the trainer of reward models comes later, only the planner knows them; use estimate, or train with stage='preference'")  # fmt: skip


def ppo(recipe: PPO, run: Recorder) -> None:
    """Raises `LabError`: PPO is planned, not trained yet."""
    raise LabError("stage='ppo': the trainer of PPO comes later, only the planner knows it; use estimate, or train with stage='grpo'")  # fmt: skip
