"""A data set of the Hugging Face hub, streamed, or any folder that `datasets` can load: the same code for both.

A data set is stored in files, the shards of its stream. A row is named by its file and its number there, so that each file
can be read by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from lablib.data.corpus import slug
from lablib.data.documents import Document, Readable, Report, Source, Unreadable, silent
from lablib.data.sources import rows
from lablib.data.sources.files import MOST
from lablib.data.sources.rows import CODE_COLUMNS, TEXT_COLUMNS
from lablib.specs import LabError, digest

VERSION = 2
"""Raised when the same data set would give other documents."""


@dataclass(frozen=True)
class Hub:
    """``hf:<name>[:<config>[:<split>]]``. Scripts from the hub are never run (`datasets` 5 has no way to)."""

    name: str
    config: str = ""
    split: str = "train"
    max_bytes: int | None = None
    """Reading stops before the row that makes it more text than this, since a stream's end may be far."""
    download_bytes: int = 0

    @classmethod
    def parse(cls, text: str, max_bytes: int | None = None) -> Hub:
        """Read ``hf:name:config:split``. Raises `LabError` for another form."""
        parts = text.removeprefix("hf:").split(":")
        if not parts[0] or len(parts) > 3:
            raise LabError(
                f"corpus={text!r}: write hf:<data set>, hf:<data set>:<config> or hf:<data set>:<config>:<split>"
            )
        name, config, split = (*parts, "", "")[:3]
        return cls(name, config, split or "train", max_bytes)

    def __str__(self) -> str:
        return f"hf:{self.name}" + (f":{self.config}:{self.split}" if self.config or self.split != "train" else "")

    def unavailable(self) -> str:
        """Says how to install what is missing."""
        try:
            import datasets  # noqa: F401
        except ImportError:
            return "the package `datasets` is missing; install llm-lab[data]"
        return ""

    def fetch(self, report: Report = silent) -> None:
        """Open the stream once, so that a wrong name fails at once. Raises `LabError`."""
        if reason := self.unavailable():
            raise LabError(f"hf:{self.name} cannot be read: {reason}")
        self._shards()

    def fingerprint(self) -> str:
        """Of the names, the revision or files that `datasets` resolved, and the cap."""
        builder = self._builder()
        return digest([VERSION, self.name, self.split, self.max_bytes, builder.config_id, str(builder.hash)])

    def documents(self) -> Iterator[Document | Unreadable]:
        """Rows in the stream's order, until `max_bytes`; a row's own licence and address go before the data set's."""
        found = self._shards()
        yield from (found if self.max_bytes is None else Beginning(found, self.max_bytes)).documents()

    def parts(self, size: float) -> Sequence[Source]:
        """A part a file, whatever its size, and files in a row where there are over `MOST`; a data set of one file stays whole.

        `max_bytes` is of all parts together: who reads them must stop (`lablib.data.scale.beginnings`).
        """
        whole = self._shards()
        count, groups = len(whole.files), min(len(whole.files), MOST)
        if groups == 1:
            return [self]
        ends = [count * n // groups for n in range(groups + 1)]
        return [replace(whole, begin=a, files=whole.files[a:b]) for a, b in pairwise(ends)]

    def _shards(self) -> Shards:
        """All of the stream. Raises `LabError` where it cannot be opened, or has no column of text."""
        builder = self._builder()
        try:
            stream = builder.as_streaming_dataset(split=self.split)
            count = stream.num_shards
        except Exception as error:  # the library raises dozens of kinds, from network to parsing
            raise self._cannot(error) from None
        self._check(stream)
        return Shards(self, _names(builder, self.split, count), 0, stream)

    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(self.name, self.config or None)
        except Exception as error:  # as below
            raise self._cannot(error) from None

    def _cannot(self, error: Exception) -> LabError:
        return LabError(
            f"hf:{self.name} (config {self.config or 'default'}, split {self.split}) cannot be opened: "
            f"{str(error)[:400]}\nCheck the name and the network; HF_HUB_OFFLINE=1 allows only what is cached"
        )

    def _check(self, stream: Any) -> None:
        names = list(stream.column_names or next(iter(stream), {}))
        if not set(names).intersection(TEXT_COLUMNS) and not set(CODE_COLUMNS) <= set(names):
            raise LabError(f"hf:{self.name} has the columns {names}, and none of {', '.join(TEXT_COLUMNS)} to read text from, nor {' and '.join(CODE_COLUMNS)}")  # fmt: skip


def _names(builder: Any, split: str, count: int) -> tuple[str, ...]:
    """Each shard's file inside the data set; its number where shards are no files."""
    known = builder.config.data_files or {}
    files = [str(file) for name in split.split("+") for file in known.get(name.strip(), ())]
    if len(files) != count:
        return tuple(f"{number:05}" for number in range(count))
    return tuple(file.removeprefix(str(builder.base_path)).lstrip("/") for file in files)


@dataclass(frozen=True)
class Shards:
    """Files of a data set that stand in a row; another process can read them without asking the hub which there are."""

    of: Hub
    files: tuple[str, ...]
    begin: int
    """Shards of the stream before them."""
    stream: Any = field(compare=False, repr=False)
    """An ``IterableDataset`` of the whole data set."""
    download_bytes: int = 0

    def __str__(self) -> str:
        return str(self.of)

    def unavailable(self) -> str:
        """As the data set."""
        return self.of.unavailable()

    def fetch(self, report: Report = silent) -> None:
        """Nothing to bring: they are streamed."""

    def fingerprint(self) -> str:
        """Of the data set and which of its files these are."""
        return digest([self.of.fingerprint(), self.begin, *self.files])

    def documents(self) -> Iterator[Document | Unreadable]:
        """Their rows to the end, whatever the data set's cap."""
        name, domain = f"hf:{self.of.name}/{self.of.split}", slug(self.of.name.rpartition("/")[2])
        licence = str(self.stream.info.license or "see the data set's card")
        count = self.stream.num_shards
        for shard, file in enumerate(self.files, self.begin):
            for number, row in enumerate(self.stream.shard(count, shard)):
                yield rows.document(row, domain, f"{name}/{file}#{number}", licence)


class Beginning:
    """The documents with which a source begins, of at most `most` bytes of text together, what is set aside included."""

    def __init__(self, source: Readable, most: int) -> None:
        """Nothing is read yet."""
        self.source, self.most = source, most
        self.bytes = 0
        """Read so far."""
        self.ended = False
        """Whether a document was left out, and with it all behind it."""

    def __str__(self) -> str:
        return str(self.source)

    def documents(self) -> Iterator[Document | Unreadable]:
        """Up to the one that would be too much; call it once."""
        for found in self.source.documents():
            size = len(found.text.encode("utf-8", "replace"))
            if self.bytes + size > self.most:
                self.ended = True
                return
            self.bytes += size
            yield found
