"""Token shards: per domain and split a file of ids and an index of document ends, and one manifest over all.

``shards/<domain>.<split>.bin`` holds little-endian uint16 ids (uint32 above 65,536 tokens), documents joined, each ended
by ``<|endoftext|>``. ``.idx.npy`` holds int64 ends of documents, in tokens. ``.docs.jsonl.gz`` says where each document
came from, in the same order: source, licence, SHA-256, and `Document.provenance` where it says something.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lablib.data.documents import Document, Report, file_sha256, silent
from lablib.specs import LabError

if TYPE_CHECKING:
    from lablib.data.tokenizer import Encoder

BATCH = 2_000_000
"""Characters that are tokenised at once."""


@dataclass(frozen=True)
class Shard:
    """One domain and split, as the manifest lists it."""

    domain: str
    split: str
    docs: int
    bytes: int
    """Of UTF-8 text."""
    tokens: int
    """With separators."""
    sha256: str
    """Of the .bin file."""
    index_sha256: str
    """Of the .idx.npy file."""


def id_type(vocab: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id."""
    return np.dtype("<u2" if vocab <= 2**16 else "<u4")


class Writer(AbstractContextManager["Writer"]):
    """Writes one domain and split, document by document."""

    def __init__(self, folder: Path, domain: str, split: str, kind: np.dtype[Any], separator: int) -> None:
        """`folder` exists; files in it are begun anew."""
        self.folder, self.domain, self.split = folder, domain, split
        self._kind, self._separator = kind, separator
        self._ends: list[int] = []
        self._bytes = 0

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.domain}.{self.split}.{ending}"

    def __enter__(self) -> Writer:
        self._tokens = self._path("bin").open("wb")
        self._zipped = gzip.GzipFile(self._path("docs.jsonl.gz"), "wb", compresslevel=1, mtime=0)
        self._sources = io.TextIOWrapper(self._zipped, encoding="utf-8")
        return self

    def add(self, document: Document, ids: NDArray[np.uint32]) -> None:
        """Append a document's ids and the separator."""
        self._tokens.write(np.append(ids, np.uint32(self._separator)).astype(self._kind).tobytes())
        self._ends.append((self._ends[-1] if self._ends else 0) + len(ids) + 1)
        self._bytes += len(document.text.encode())
        row = {"source": document.source, "licence": document.licence, "sha256": document.sha256}
        self._sources.write(json.dumps({**row, **document.provenance}, ensure_ascii=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        self._sources.close()
        self._zipped.close()
        np.save(self._path("idx.npy"), np.array(self._ends, dtype="<i8"))

    def shard(self) -> Shard:
        """What was written; call it after the end of the `with` block."""
        sums = file_sha256(self._path("bin")), file_sha256(self._path("idx.npy"))
        tokens = self._ends[-1] if self._ends else 0
        return Shard(self.domain, self.split, len(self._ends), self._bytes, tokens, *sums)


def tokenise(
    documents: Iterator[tuple[Document, str]],
    encoder: Encoder,
    writers: dict[str, Writer],
    report: Report = silent,
) -> None:
    """Encode (document, split) pairs in batches and give each to its split's writer, in order."""
    done = 0
    for batch in _batches(documents):
        for (document, split), ids in zip(batch, encoder.run([item.text for item, _ in batch]), strict=True):
            writers[split].add(document, ids)
            done += len(document.text)
        report(done, 0)


def _batches(documents: Iterator[tuple[Document, str]]) -> Iterator[list[tuple[Document, str]]]:
    batch: list[tuple[Document, str]] = []
    size = 0
    for item in documents:
        batch.append(item)
        size += len(item[0].text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class ShardData:
    """A shard opened for reading, memory-mapped."""

    tokens: NDArray[Any]
    """(tokens,), unsigned ids."""
    starts: NDArray[np.int64]
    """(documents,), first token of each."""
    lengths: NDArray[np.int64]
    """(documents,), tokens of each with its separator."""


def read(folder: Path, domain: str, split: str, vocab: int) -> ShardData:
    """Open a shard below a data folder. Raises `LabError` where it is missing or index and tokens disagree."""
    stem = folder / "shards" / f"{domain}.{split}"
    try:
        ends = np.load(f"{stem}.idx.npy", allow_pickle=False).astype(np.int64)
        size = Path(f"{stem}.bin").stat().st_size // id_type(vocab).itemsize
    except (OSError, ValueError) as error:
        raise LabError(f"{stem}.bin or its index cannot be read ({error}); prepare the data again") from None
    if size != (ends[-1] if len(ends) else 0):
        raise LabError(f"{stem}.bin holds {size} tokens, its index says otherwise; prepare the data again")
    tokens = np.memmap(f"{stem}.bin", dtype=id_type(vocab), mode="r") if size else np.empty(0, id_type(vocab))
    lengths = np.diff(ends, prepend=0)
    return ShardData(tokens, ends - lengths, lengths)


def whole(folder: Path) -> bool:
    """Whether every shard of a data folder has the content that its manifest states."""
    try:
        rows = manifest(folder)["shards"]
        stems = [(folder / "shards" / f"{row['domain']}.{row['split']}", row) for row in rows]
        return all(
            file_sha256(Path(f"{stem}.bin")) == row["sha256"]
            and file_sha256(Path(f"{stem}.idx.npy")) == row["index_sha256"]
            for stem, row in stems
        )
    except (LabError, OSError, KeyError):
        return False


def manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a data folder. Raises `LabError` where it is missing."""
    path = Path(folder) / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{folder} is not a prepared data folder ({error}); run a Prepare recipe first") from None
    return found
