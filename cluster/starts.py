"""What mid-training and merging begin from, looked at before they queue: models that are there, checkpoints that will be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lablib.plan.pretraining import CHECKPOINTS
from lablib.runs import Run
from lablib.specs import Merge, Midtrain, Pretrain, Recipe, Ref, catalog


def faults(recipe: Recipe, root: Path) -> Iterator[str]:
    """Why `recipe` could not begin, each with its remedy; its runs lie in `root`. Nothing for other stages."""
    if isinstance(recipe, Midtrain):
        steps = (recipe.from_step,) if recipe.from_step else ()
        yield from _faults("start", recipe.start, "from_step", steps, root)
    if isinstance(recipe, Merge):
        for source in recipe.models:
            yield from _faults("models", source, "steps", recipe.steps, root)


def _faults(field: str, source: Ref | str, stepped: str, steps: tuple[int, ...], root: Path) -> Iterator[str]:
    if isinstance(source, str):
        yield from _of_text(field, source, root)
        return
    run = Run(root / source.run)
    made = run.artefacts.get(source.artefact)
    if made is not None and made.kind != "model":
        yield f"{field}={source} is of kind {made.kind!r}; refer to a model, which a run names 'model'"
    elif steps and source.science != run.recipe.science_hash:
        yield f"{field}={source}: the run's science hash is {run.recipe.science_hash}, not {source.science}; write {_reference(run)}"
    else:
        yield from filter(None, (_of_step(run, stepped, step) for step in steps))


def _of_text(field: str, source: str, root: Path) -> Iterator[str]:
    from lablib.models.pretrained import PRETRAINED

    if source in PRETRAINED or (Path(source) / "config.json").is_file():
        return
    for folder in (Path(source), root / source):
        if (folder / "recipe.json").is_file():
            yield f"{field}={source!r} is a run, not a model; write {_reference(Run(folder))}, or the folder {folder / 'model'}"
            return
    shape = "a shape in the catalogue, whose weights the lab has not; give the folder where they are" if source in catalog.models else "not a folder with a config.json"  # fmt: skip
    yield f"{field}={source!r} is {shape}, a run's model, or one of {', '.join(PRETRAINED)}"


def _reference(run: Run) -> str:
    return run.model.model_dump_json()


def _of_step(run: Run, stepped: str, step: int) -> str:
    """Why there is no checkpoint of `step` in a run that has ended, or none to be counted on in one that has not."""
    there = sorted(int(folder.name[5:]) for folder in (run.path / "checkpoints").glob("step-*"))
    if step in there and run.state.finished:
        return ""
    told = f"{stepped}={step}: run {run.id}"
    if not isinstance(run.recipe, Pretrain):
        return (
            f"{told} is a {run.recipe.stage} run, whose checkpoints are no start; refer to its model without {stepped}"
        )
    if step > run.recipe.steps:
        return f"{told} has only {run.recipe.steps} steps; choose one of them"
    if run.state.finished:
        return f"{told} keeps checkpoints {there or 'no more'}; choose one of them, or set permanent_every in the recipe that writes them"
    kept, saved = run.recipe.permanent_every, run.recipe.checkpoint_every or -(-run.recipe.steps // CHECKPOINTS)
    first = kept and step % saved == 0 and (step - saved) // kept < step // kept
    if step == run.recipe.steps or first:
        return ""
    stay = f"the first at or past each {kept} steps" if kept else "none (permanent_every is not set)"
    return f"{told} is {run.state}, writes checkpoints every {saved} steps and keeps for good {stay}; choose one that will be there when it ends"
