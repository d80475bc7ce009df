"""Which model a recipe works on, found without loading it: a spec, a catalogue name, a folder's config or another run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lablib.specs import LabError, Merge, ModelSpec, Pretrain, Recipe, Ref, catalog, parse_recipe
from lablib.specs.hf_positions import PositionsError
from lablib.specs.paths import runs_root


def model_of(source: Ref | str | ModelSpec, root: Path | None = None) -> ModelSpec:
    """The shape of a model input; `root` is the folder of runs that a `Ref` is looked up in ($LAB_RUNS or ./runs).

    Positions of a kind that a `ModelSpec` does not carry are left out of a folder's shape (`cautions` says so). Raises
    `LabError` where a name is not in the catalogue, a folder has no config or a run has no model.
    """
    if isinstance(source, ModelSpec):
        return source
    if isinstance(source, Ref):
        return _of_run((root or runs_root()) / source.run, root)
    if Path(source).exists():
        return _of_folder(source)[0]
    base = source.removesuffix("-instruct")
    return catalog.models[source if source in catalog.models else base]


def cautions(recipe: Recipe) -> Iterator[str]:
    """Which of a recipe's model folders turn their positions as no `ModelSpec` can say, so that the plan leaves it out."""
    for name in ("model", "models", "reward"):
        given = getattr(recipe, name, ())
        for source in given.values() if isinstance(given, dict) else given if isinstance(given, tuple) else (given,):
            if isinstance(source, str) and Path(source).exists() and (said := _of_folder(source)[1]):
                yield f"{name}={source}: planned without its stretched positions ({said}), which have no parameters and hardly a cost"


def _of_folder(source: str) -> tuple[ModelSpec, str]:
    config = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    return _of_config(str(config), config.stat().st_mtime_ns if config.is_file() else 0)


@lru_cache(maxsize=64)
def _of_config(path: str, _changed: int) -> tuple[ModelSpec, str]:
    """The shape, and what its config says of positions that the shape leaves out."""
    try:
        return ModelSpec.from_hf(path), ""
    except PositionsError as error:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        plain = {**config, "rope_parameters": None, "rope_scaling": None, "partial_rotary_factor": None}
        return ModelSpec.from_hf(plain), str(error).split(":")[0]


def _of_run(folder: Path, root: Path | None) -> ModelSpec:
    """Follow a run's recipe to the model that the chain began with: fine-tuning changes weights, never the shape."""
    file = folder / "recipe.json"
    if not file.is_file():
        raise LabError(
            f"There is no run {folder.name} in {folder.parent}; submit it first, or give a model by name or folder"
        )
    recipe = parse_recipe(json.loads(file.read_text(encoding="utf-8")))
    if isinstance(recipe, Merge):
        return model_of(recipe.models[-1], root)
    source = recipe.model if isinstance(recipe, Pretrain) else getattr(recipe, "model", None)
    if source is None:
        raise LabError(f"run {folder.name} is a {recipe.stage} run, which makes no model; refer to a run that does")
    return model_of(source, root)
