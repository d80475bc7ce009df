"""The merge stage: the weighted mean of models or checkpoints, read and written one tensor at a time."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint import load as load_shards
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from lablib.data.tokenizer import tokenizer_hash
from lablib.models.checkpoints import checkpoint
from lablib.models.folder import replace_folder
from lablib.models.load import input_model
from lablib.models.stored import Reader
from lablib.runs import Recorder, Stopped
from lablib.specs import LabError, Merge, Ref

FILE_BYTES = 2**30
"""Largest safetensors file that is written, but for one larger tensor; all of it is in memory once."""
_WEIGHT_FILES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_WEIGHTS = "model."
"""What a checkpoint's names of weights begin with; the optimiser's state has other names."""


@dataclass(frozen=True)
class Sources:
    """Models or checkpoints of one shape, and the share of each."""

    folders: tuple[Path, ...]
    weights: tuple[float, ...]
    are_checkpoints: bool = False


def merge(recipe: Merge, run: Recorder) -> None:
    """Write the average as the artefact "model"; where the run is asked to stop, between two tensors, it returns without one.
    Raises `LabError` where shapes or tokenizers differ, or an input is missing."""
    torch.set_num_threads(recipe.threads)
    whole = [input_model(run, model) for model in recipe.models]
    folders = [run.input(folder) for folder in _checkpoints(recipe, run)] or whole
    target = run.path / "model"
    try:
        average(Sources(tuple(folders), recipe.weights, bool(recipe.steps)), whole[-1], target, run.heed)
    except Stopped:
        run.event("stopping", at="merging")
        return
    run.note(merge={"weights": list(recipe.weights), "of": [str(folder) for folder in folders]})
    run.artefact("model", target, kind="model")


def average(sources: Sources, like: Path, target: Path, heed: Callable[[], None] = lambda: None) -> Path:
    """Write Σ wᵢ·modelᵢ to the model folder `target`, with the config and tokenizer of the folder `like`.

    Sums are in fp64 and written in the type that was read; what is no floating-point number is the last source's. Memory
    holds a file of at most `FILE_BYTES` (or one tensor), and of the tensor at hand the sum and one summand in fp64. `heed` is called before each tensor; what it raises ends
    the work. Raises `LabError` where names or shapes differ, or tokenizers.
    """
    if not sources.are_checkpoints:
        _same_tokenizers(sources.folders)
    aside = target.with_name(f".{target.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        for file in like.iterdir():
            if file.is_file() and file.suffix not in _WEIGHT_FILES and not file.name.endswith(".index.json"):
                shutil.copy(file, aside)
        _write(_averaged(sources, heed), aside)
        replace_folder(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _checkpoints(recipe: Merge, run: Recorder) -> list[Path]:
    one = recipe.models[0]
    if not recipe.steps or not isinstance(one, Ref):
        return []
    return [checkpoint(run.path.parent / one.run, step, one.science) for step in recipe.steps]


def _same_tokenizers(folders: tuple[Path, ...]) -> None:
    hashes = {tokenizer_hash(folder) if (folder / "tokenizer.json").is_file() else None for folder in folders}
    if len(hashes) > 1:
        raise LabError(f"models: {', '.join(map(str, folders))} learned from different tokenizers: their embeddings do not mean the same; merge models of one tokenizer")  # fmt: skip


def _averaged(sources: Sources, heed: Callable[[], None]) -> Iterator[tuple[str, torch.Tensor]]:
    with ExitStack() as stack:
        opened: list[Tensors] = [
            Shards(folder) if sources.are_checkpoints else Files(folder, stack) for folder in sources.folders
        ]
        names = opened[-1].names()
        for folder, one in zip(sources.folders, opened, strict=True):
            if different := set(one.names()) ^ set(names):
                raise LabError(f"models: {folder} and {sources.folders[-1]} differ in {sorted(different)[0]}; merge models of one shape")  # fmt: skip
        for name in names:
            heed()
            yield name.removeprefix(_WEIGHTS) if sources.are_checkpoints else name, _mean(name, opened, sources)


def _mean(name: str, opened: list[Tensors], sources: Sources) -> torch.Tensor:
    last = opened[-1].read(name)
    if not last.is_floating_point():
        return last
    total = last.double() * sources.weights[-1]
    for one, weight, folder in zip(opened[:-1], sources.weights, sources.folders, strict=False):
        tensor = one.read(name)
        if tensor.shape != last.shape:
            raise LabError(f"models: {name} is {tuple(tensor.shape)} in {folder} and {tuple(last.shape)} in {sources.folders[-1]}; merge models of one shape")  # fmt: skip
        total.add_(tensor.double(), alpha=weight)
    return total.to(last.dtype)


class Tensors(Protocol):
    """The weights of one model, read by name."""

    def names(self) -> list[str]:
        """In order."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""


class Files:
    """The weights in a folder's safetensors."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """`stack` closes the files. Raises `LabError` where there are none."""
        opened = [stack.enter_context(safe_open(file, "pt")) for file in sorted(folder.glob("model*.safetensors"))]
        if not opened:
            raise LabError(f"models: there are no safetensors in {folder}; export the model first")
        self._where = {name: file for file in opened for name in file.keys()}  # noqa: SIM118

    def names(self) -> list[str]:
        """In order."""
        return sorted(self._where)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        found: torch.Tensor = self._where[name].get_tensor(name)
        return found


class Shards:
    """The tensors of a checkpoint whose names begin with `kind`, put together from the shards of all ranks."""

    def __init__(self, folder: Path, kind: str = _WEIGHTS) -> None:
        """`kind` is of the weights, or of one of the optimiser's moments."""
        self._reader = Reader(folder)
        found = self._reader.read_metadata().state_dict_metadata
        self._known = {name: known for name, known in found.items() if name.startswith(kind)}

    def names(self) -> list[str]:
        """In order."""
        return sorted(self._known)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        known = self._known[name]
        assert isinstance(known, TensorStorageMetadata)
        box = {name: torch.empty(known.size, dtype=known.properties.dtype)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            load_shards(box, storage_reader=self._reader, no_dist=True)
        return box[name]


def _write(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Safetensors files of at most `FILE_BYTES` (or one tensor) with the index that transformers reads."""
    places: dict[str, str] = {}
    held: dict[str, torch.Tensor] = {}
    size = total = 0

    def flush() -> None:
        name = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(held, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(held, name))
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > FILE_BYTES:
            flush()
            size = 0
        held[name] = tensor.contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
