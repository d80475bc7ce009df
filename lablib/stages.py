"""`execute`: from a recipe to the stage that carries it out, imported only when it is needed."""

from __future__ import annotations

from importlib import import_module, metadata

from packaging.requirements import Requirement

from lablib.runs import Recorder
from lablib.specs import AnyRecipe, LabError

_STAGES = {
    "prepare": ("lablib.data.prepare", "prepare"),
    "pretrain": ("lablib.train.pretrain", "pretrain"),
    "midtrain": ("lablib.train.pretrain", "pretrain"),
    "merge": ("lablib.models.merge", "merge"),
    "sft": ("lablib.posttrain.sft", "sft"),
    "preference": ("lablib.posttrain.preference", "preference"),
    "reward": ("lablib.posttrain.later", "reward"),
    "grpo": ("lablib.posttrain.grpo", "grpo"),
    "ppo": ("lablib.posttrain.later", "ppo"),
    "evaluate": ("lablib.evals.evaluate", "evaluate"),
    "export": ("lablib.models.export", "export_model"),
    "doremi": ("lablib.train.reweigh", "reweigh"),
    "synthesize": ("lablib.posttrain.synthesize", "synthesize"),
    "calibrate": ("lablib.train.measure", "measure"),
}


def execute(recipe: AnyRecipe, run: Recorder) -> None:
    """Carry out a recipe in this process, writing into `run`; every rank of a distributed stage calls it.

    Raises `LabError` where a package that stages need is missing or too old.
    """
    refuse_old_packages("data" if recipe.stage == "prepare" else "train")
    module, function = _STAGES[recipe.stage]
    getattr(import_module(module), function)(recipe, run)


def refuse_old_packages(extra: str) -> None:
    """Raises `LabError` naming each installed package that is outside what pyproject.toml admits for `extra`."""
    wrong = []
    for text in metadata.requires("llm-lab") or []:
        wanted = Requirement(text)
        if wanted.marker and wanted.marker.evaluate({"extra": extra}) and wanted.name != "llm-lab":
            found = _version(wanted.name)
            if not wanted.specifier.contains(found, prereleases=True):
                wrong.append(f"{wanted.name}{wanted.specifier} is needed, {found or 'none'} is installed")
    if wrong:
        raise LabError(f"{'; '.join(wrong)}. `make setup` installs the tested versions")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
