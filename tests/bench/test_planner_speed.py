"""The speed figures are of what they say: distinct recipes, a grid of 10^5 layouts, an import without torch."""

from __future__ import annotations

import pytest

from bench.planner import speed


def test_recipes_are_distinct() -> None:
    made = list(speed.recipes())
    assert len(made) == speed.RECIPES
    assert len({recipe.model for recipe in made}) == speed.RECIPES


def test_every_layout_of_the_grid_is_planned_and_torch_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "RECIPES", 20)
    monkeypatch.setattr(speed, "IMPORTS", 1)
    made = speed.speed()
    assert made["estimate_recipes"] == 20
    assert made["grid_points"] == made["grid_usable"] == speed.GRID
    assert made["import_torch"] is False
