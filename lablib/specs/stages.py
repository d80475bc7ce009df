"""All recipes as one union by their `stage`, and a recipe read from a mapping or a file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from lablib.specs.afterwards import Calibrate, Evaluate, Export, Merge
from lablib.specs.errors import LabError, teach
from lablib.specs.midtrain import Midtrain
from lablib.specs.posttrain import GRPO, PPO, SFT, Preference, Reward
from lablib.specs.recipes import DoReMi, Prepare, Pretrain
from lablib.specs.synthetic import Synthesize

AnyRecipe = Annotated[
    Prepare
    | Pretrain
    | Midtrain
    | Merge
    | SFT
    | Preference
    | Reward
    | GRPO
    | PPO
    | Evaluate
    | Export
    | Calibrate
    | DoReMi
    | Synthesize,
    Field(discriminator="stage"),
]
_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(AnyRecipe)
STAGES: tuple[str, ...] = tuple(recipe.model_fields["stage"].default for recipe in get_args(get_args(AnyRecipe)[0]))


def parse_recipe(data: dict[str, Any]) -> AnyRecipe:
    """The recipe of a mapping, by its `stage`. Raises `LabError` that names the field, the value and the remedy."""
    stage = data.get("stage")
    if stage not in STAGES:
        raise LabError(f"stage={stage!r}: a recipe's stage is one of {', '.join(STAGES)}")
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise teach(error, f"{stage} recipe") from None


def load_recipe(path: str | Path) -> AnyRecipe:
    """Read a recipe file (.toml or .json). Raises `LabError` where it is missing or wrong."""
    path = Path(path)
    if not path.is_file():
        raise LabError(f"There is no recipe file {path}; give the path of a .toml or .json recipe")
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise LabError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise LabError(f"{path} holds a {type(data).__name__}; a recipe is a table")
    return parse_recipe(data)
