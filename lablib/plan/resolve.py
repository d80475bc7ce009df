"""Which model a recipe works on, found without loading it: a spec, a catalogue name, a folder's config or another run."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from lablib.specs import LabError, Merge, ModelSpec, Pretrain, Ref, catalog, parse_recipe
from lablib.specs.paths import runs_root


def model_of(source: Ref | str | ModelSpec, root: Path | None = None) -> ModelSpec:
    """The shape of a model input; `root` is the folder of runs that a `Ref` is looked up in ($LAB_RUNS or ./runs).

    Raises `LabError` where a name is not in the catalogue, a folder has no config or a run has no model.
    """
    if isinstance(source, ModelSpec):
        return source
    if isinstance(source, Ref):
        return _of_run((root or runs_root()) / source.run, root)
    if Path(source).exists():
        config = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
        return _of_config(str(config), config.stat().st_mtime_ns if config.is_file() else 0)
    base = source.removesuffix("-instruct")
    return catalog.models[source if source in catalog.models else base]


@lru_cache(maxsize=64)
def _of_config(path: str, _changed: int) -> ModelSpec:
    return ModelSpec.from_hf(path)


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
