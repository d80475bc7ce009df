"""Weights on disk, read into a model that is laid out already: each rank reads its own part, one tensor at a time.

No rank holds more than its shard and one tensor beside it: a model may be larger than any host.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.futures import Future
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)
from transformers.utils.loading_report import LoadStateDictInfo

from lablib.models.build import tied
from lablib.models.seeded import local, places, taken
from lablib.specs import LabError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
    from transformers import PreTrainedModel

MAPPED = 2**24
"""Bytes of a checkpoint's file that are looked at before it is opened anew; opening one of 3,000 tensors took 6 ms."""


ROWS = 1024
"""Of an embedding and its head that are compared at a time."""


class Reader(HuggingFaceStorageReader):
    """torch's reader of a checkpoint's shards, but for two things: it reads the files' headers once, and it lets go of each
    part of a file that it has read, for pages of a mapped file count as the process's memory."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the shards."""
        super().__init__(str(folder))
        self._headers: Metadata | None = None

    def read_metadata(self) -> Metadata:
        """Names, shapes and places of all tensors."""
        self._headers = self._headers or super().read_metadata()
        return self._headers

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill what the plan asks for."""
        by_file = defaultdict(list)
        for item in plan.items:
            by_file[self.storage_data[item.storage_index].relative_path].append(item)
        for file, items in by_file.items():
            for some in self._batches(items):
                with safe_open(file, "pt") as opened:
                    for item in some:
                        self._process_read_request(opened, item, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _batches(self, items: list[ReadItem]) -> Iterator[list[ReadItem]]:
        held, total = list[Any](), 0
        for item in items:
            stored = self.storage_data[item.storage_index]
            size = stored.shape.numel() * stored.dtype.itemsize
            if held and total + size > MAPPED:
                yield held
                held, total = [], 0
            held.append(item)
            total += size
        yield held


@torch.no_grad()
def pour(model: nn.Module, whole: PreTrainedModel, folder: Path) -> None:
    """Fill every parameter and persistent buffer of `model`, in place, from the safetensors of a Hugging Face folder.

    `model` is all of `whole` (a `lablib.models.seeded.skeleton`) or a part of it under the same names, sharded or not, in any
    floating-point type; nothing is sent. Names and experts are stored as transformers stores them, apart or stacked. Raises
    ValueError, the same on every rank, for a tensor that is missing, too many or of another shape.
    """
    kept = set(model.state_dict())  # after an evaluation FSDP2 may hold weights gathered; its hook puts the shards back
    targets = {name: one for name, one in (*model.named_parameters(), *model.named_buffers()) if name in kept}
    stored = _stored(folder, whole)
    _check(stored, whole)
    for name, target in targets.items():
        if local(target).numel():  # a rank may hold nothing of a tensor with fewer rows than there are ranks
            stored[name].fill(target)


@dataclass(frozen=True)
class _Entry:
    """One tensor of a file."""

    name: str
    file: Path
    shape: tuple[int, ...]

    def read(self, held: list[Tensor]) -> Tensor:
        """What of it has these places along each dimension, in ascending order; mapped from the file while it is held."""
        with safe_open(self.file, "pt") as opened:
            around = tuple(slice(int(places[0]), int(places[-1]) + 1) for places in held)
            found: Tensor = opened.get_slice(self.name)[around] if held else opened.get_tensor(self.name)
        return taken(found, [places - places[0] for places in held])

    def whole(self) -> Tensor:
        """All of it, mapped from the file while it is held."""
        with safe_open(self.file, "pt") as opened:
            found: Tensor = opened.get_tensor(self.name)
        return found


class _Stored:
    """How a tensor of a model lies in the files: as one of them, or as the experts that it is put together from."""

    def __init__(self, name: str, whole: PreTrainedModel) -> None:
        """`name` is the model's."""
        self.name, self._whole = name, whole
        self.converter: WeightConverter | None = None
        self.entries: dict[str, list[_Entry]] = defaultdict(list)
        """By the pattern of the converter that they match."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor. Raises ValueError where it cannot be put together."""
        if self.converter is None:
            return next(iter(self.entries.values()))[0].shape
        first = self.converter.operations[0]
        if not isinstance(first, MergeModulelist) or first.dim != 0:
            raise ValueError(f"{self.name} is stored in a way that cannot be read in parts")
        counts = {len(some) for some in self.entries.values()}
        if len(counts) > 1 or any(len({one.shape for one in some}) > 1 for some in self.entries.values()):
            raise ValueError(f"{self.name}: its experts are not alike")
        like = {pattern: torch.empty(some[0].shape, device="meta") for pattern, some in self.entries.items()}
        return (counts.pop(), *self._joined(like).shape)

    def fill(self, target: Tensor) -> None:
        """Put this rank's part into it."""
        held, mine = [places(target, dim) for dim in range(target.ndim)], local(target)
        if self.converter is None:
            (entries,) = self.entries.values()
            mine.copy_(entries[0].read(held))
            return
        for row, expert in enumerate(held[0].tolist()):
            one = self._joined({pattern: some[expert].whole() for pattern, some in self.entries.items()})
            mine[row].copy_(taken(one, held[1:]))

    def _joined(self, parts: dict[str, Tensor]) -> Tensor:
        """One expert, by transformers' own rule."""
        converter = copy.deepcopy(self.converter)
        assert converter is not None
        for pattern, part in parts.items():
            converter.add_tensor(self.name, self.name, pattern, part)
        (found,) = converter.convert(self.name, model=self._whole, config=self._whole.config).values()
        stack: Tensor = found[0] if isinstance(found, list) else found
        return stack[0]


def _stored(folder: Path, whole: PreTrainedModel) -> dict[str, _Stored]:
    """The model's names → how each is stored, those among them that the model does not know."""
    transforms = get_model_conversion_mapping(whole)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    known, found = whole.state_dict(), dict[str, _Stored]()
    for entry in sorted(_entries(folder), key=lambda one: dot_natural_key(one.name)):
        name, pattern = rename_source_key(entry.name, renamings, converters, whole.base_model_prefix, known)
        if name not in known and entry.name in known:
            name, pattern = entry.name, None
        one = found.setdefault(name, _Stored(name, whole))
        one.converter = by_pattern[pattern] if pattern else None
        one.entries[pattern or entry.name].append(entry)
    return found


def _entries(folder: Path) -> Iterable[_Entry]:
    """The tensors that transformers would read there."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        files = [single]
    elif index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(named))]
    else:
        raise LabError(f"{folder} has no model.safetensors; only safetensors are read: export the model to them first")
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield _Entry(name, file, tuple(opened.get_slice(name).get_shape()))


def _check(stored: dict[str, _Stored], whole: PreTrainedModel) -> None:
    known = whole.state_dict()
    own = {name for name, _ in (*whole.named_parameters(), *whole.named_buffers())}  # a tied one's second name is none
    missing = own & set(known) - set(stored)  # all of them: what transformers lets pass would begin at random
    told = LoadStateDictInfo(set(missing), set(stored) - set(known), set(), [], {}, set())
    whole._adjust_missing_and_unexpected_keys(told)
    for kind, names in (("missing", missing), ("unexpected", told.unexpected_keys)):
        if names:
            raise ValueError(f"{kind}: {min(names)}")
    for name, one in stored.items():
        if name in known and one.shape != tuple(known[name].shape):
            raise ValueError(f"{name}: {one.shape} there, {tuple(known[name].shape)} in the model")
    if tied(whole):
        _check_ends(*(stored.get(f"{name}.weight") for name in ends(whole)))


def ends(whole: PreTrainedModel) -> tuple[str, str]:
    """The names of a model's embedding and head."""
    names = {id(module): name for name, module in whole.named_modules()}
    return names[id(whole.get_input_embeddings())], names[id(whole.get_output_embeddings())]


def _check_ends(embedding: _Stored | None, head: _Stored | None) -> None:
    """Raises ValueError where the files have a head of its own for a model that has none."""
    if embedding is None or head is None:
        return
    (first,), (second,) = (next(iter(one.entries.values())) for one in (embedding, head))
    every = [torch.arange(size) for size in first.shape]
    if any(
        not torch.equal(first.read([rows, every[1]]), second.read([rows, every[1]])) for rows in every[0].split(ROWS)
    ):
        raise ValueError(f"{head.name} is another matrix than {embedding.name}, but tied_embeddings=True makes them one: set it to False")  # fmt: skip
