"""Where a mid-training run begins: another run's model, or a checkpoint of it with the optimiser's state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException

from lablib.data.tokenizer import require
from lablib.models.checkpoints import MARKER, checkpoint, read_marker, vocabulary
from lablib.models.load import input_model
from lablib.models.merge import Shards
from lablib.models.seeded import skeleton
from lablib.models.stored import pour
from lablib.plan.resolve import model_of
from lablib.runs import Recorder
from lablib.specs import LabError, Midtrain, ModelSpec, Pretrain, Ref
from lablib.specs.hf_positions import positions
from lablib.train.checkpoint import tensors_of, weights_of
from lablib.train.rules.base import set_step
from lablib.train.sharded import load_tensors


@dataclass(frozen=True)
class Start:
    """A model folder, or a checkpoint's."""

    folder: Path

    @property
    def is_checkpoint(self) -> bool:
        """Whether the optimiser's state is there too."""
        return (self.folder / MARKER).is_file()

    @property
    def updates(self) -> int:
        """Updates that the optimiser has made, those of its own start among them; 0 where it begins anew."""
        marker = read_marker(self.folder) if self.is_checkpoint else {"step": 0}
        return int(marker.get("updates", marker["step"]))

    def checked(self, tokenizer: Path) -> Start:
        """Itself. Raises `LabError` unless the model learned from the very tokenizer in the folder `tokenizer`."""
        expected = vocabulary(self.folder) if self.is_checkpoint else _config(self.folder).get("tokenizer_hash")
        require(expected, tokenizer, f"model {self.folder}")
        return self

    def fill(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, spec: ModelSpec) -> None:
        """Put the weights into a model of `spec`, and of a checkpoint the optimiser's state too, whatever layout wrote it.

        Every rank calls it and reads its own part, holding one tensor beside it. Raises `LabError` for another shape or
        optimiser.
        """
        if not self.is_checkpoint:
            try:
                pour(model, skeleton(spec), self.folder)
            except ValueError as error:
                raise _another_shape(self.folder, str(error)) from None
            return
        try:
            load_tensors(tensors_of(model, optimizer), self.folder)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise _another_shape(self.folder, f"or its optimizer.kind: {str(error).splitlines()[0]}") from None
        set_step(optimizer, self.updates)


def find_start(recipe: Pretrain, run: Recorder) -> str:
    """The verified folder that `recipe` begins from, "" where it begins from nothing. Raises `LabError`."""
    if not isinstance(recipe, Midtrain):
        return ""
    if recipe.from_step is None:
        folder = input_model(run, recipe.start)
        _check_positions(recipe, _config(folder), folder)
        return str(folder)
    assert isinstance(recipe.start, Ref)
    parent = run.path.parent / recipe.start.run
    folder = checkpoint(parent, recipe.from_step, recipe.start.science)
    _check_positions(recipe, model_of(recipe.start, run.path.parent).to_hf().to_dict(), folder)
    _check_names(recipe.model, folder)
    return str(run.input(folder))


def _check_positions(recipe: Midtrain, config: dict[str, Any], folder: Path) -> None:
    """What `folder` holds may stretch its positions in another way than the recipe's model: that would be lost in silence."""
    own, wanted = _turns(config), _turns(recipe.model.to_hf().to_dict())
    if own != wanted and recipe.kind != "extend":
        raise LabError(f"model: {folder} has rotary positions {own}, the recipe's model {wanted}; give the model that it was made with (ModelSpec.from_hf), or kind='extend' to change them")  # fmt: skip


def _check_names(spec: ModelSpec, folder: Path) -> None:
    """A checkpoint gives what it is asked for: layers that it has beyond the recipe's would be lost in silence."""
    if different := set(weights_of(skeleton(spec))) ^ set(Shards(folder).names()):
        raise _another_shape(folder, min(different).removeprefix("model."))


def _turns(config: dict[str, Any]) -> dict[str, Any]:
    theta, scaling = positions(config)
    found = {} if scaling is None else scaling.model_dump(exclude_none=True)
    if found.get("kind") == "linear":
        del found["original"]  # it turns nothing, and not every config has it
    return {"rope_theta": theta, **found}


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _another_shape(folder: Path, what: str) -> LabError:
    return LabError(f"start: {folder} has not the shape of the recipe's model ({what}); set model to what it was made with")  # fmt: skip
