"""Documents to sketches: their shingles and a hash for each band of their MinHash signature, kept in files.

Memory does not grow with the text: a document leaves about 100 bytes here (`Sketches`), its shingles (8 bytes a word) and
its bands (8 bytes each) lie in two temporary files, and one batch of text is held for each worker.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import Batch, Hashes, Ints, chain, mix, shingle_sets
from lablib.data.documents import Document
from lablib.specs import LabError
from lablib.specs.dedup import Dedup

SEED = 1
"""Of the hash functions; with the shingles' hashes it decides which pairs are proposed."""
BATCH = 1 << 20
"""Characters of one batch; a longer document is a batch of its own."""


Progress = Callable[[int], None]
"""Called with the number of characters read so far; may raise to stop."""


def unheard(done: int) -> None:
    """Progress that nobody hears of."""


def rensa() -> Any:
    """The MinHash library. Raises `LabError` where it is not installed."""
    try:
        import rensa as library
    except ImportError:
        raise LabError("Near-duplicates need rensa: pip install 'llm-lab[data]'") from None
    return library


@dataclass
class Sketches:
    """What is known of all documents, in the order in which they were read."""

    shingles: Batch
    """Sorted and distinct for each document; a map of a file."""
    bands: Hashes
    """(documents, bands); a map of a file."""
    marks: Hashes
    """(documents, 4): the SHA-256 as big-endian numbers."""
    lengths: Ints
    """Characters."""
    domains: Ints
    """Index in `names`."""
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lengths)

    def sha256(self, index: int) -> str:
        """64 hex digits."""
        return str(self.marks[index].astype(">u8").tobytes().hex())

    def save(self, folder: Path) -> None:
        """Write what is not in `collect`'s files of this folder already."""
        np.savez(
            folder / "known.npz",
            offsets=self.shingles.offsets,
            marks=self.marks,
            lengths=self.lengths,
            domains=self.domains,
        )

    @classmethod
    def joined(cls, parts: Sequence[Path], bands: int, names: Sequence[str], folder: Path) -> Sketches:
        """What was saved in the folders of `parts`, one after the other, in files of `folder`."""
        for name in ("shingles", "bands"):
            with (folder / name).open("wb") as out:
                for part in parts:
                    with (part / name).open("rb") as file:
                        shutil.copyfileobj(file, out, 1 << 20)
        every = [np.load(part / "known.npz") for part in parts]
        offsets = np.cumsum(np.concatenate([[0], *(np.diff(known["offsets"]) for known in every)]), dtype=np.int64)
        marks = np.concatenate([np.zeros((0, 4), np.uint64), *(known["marks"] for known in every)])
        lengths, domains = (_joined([known[name] for known in every]) for name in ("lengths", "domains"))
        shingles = Batch(_map(folder / "shingles"), offsets)
        return cls(shingles, _map(folder / "bands").reshape(-1, bands), marks, lengths, domains, list(names))


def sketch(texts: list[str], domains: list[int], ngram: int, bands: int, rows: int) -> tuple[Batch, Hashes]:
    """(Shingles, hashes of bands) of some documents; equal hashes of a band in two domains with different numbers differ."""
    sets = shingle_sets(texts, ngram)
    signature = rensa().RMinHash.digest_matrix_from_flat_token_hashes(
        sets.hashes, sets.offsets.astype(np.uint64), bands * rows, SEED
    )
    columns = np.array(signature.to_rows(), dtype=np.uint64).reshape(len(texts), bands, rows)
    hashes = chain([columns[:, :, row] for row in range(rows)])
    return sets, hashes ^ mix(np.array(domains, dtype=np.uint64))[:, None]


def collect(
    documents: Iterable[Document],
    spec: Dedup,
    folder: Path,
    workers: int = 1,
    report: Progress = unheard,
    names: Sequence[str] = (),
) -> Sketches:
    """Sketches of all documents in files of `folder`; `report` gets the number of characters read so far.

    Sketches of parts of a corpus can be joined where all were given the same `names` of domains.
    """
    bands, rows = spec.banding
    kept = _Kept(folder, spec.scope == "domain", names)
    jobs = ((*kept.note(batch), spec.ngram, bands, rows) for batch in _batches(documents))
    done = 0
    with kept:
        for texts, (sets, hashes) in _mapped(jobs, workers):
            kept.add(sets, hashes)
            done += sum(map(len, texts))
            report(done)
    return kept.sketches(bands)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


Job = tuple[list[str], list[int], int, int, int]


def _mapped(jobs: Iterable[Job], workers: int) -> Iterator[tuple[list[str], tuple[Batch, Hashes]]]:
    """(Texts, result) of each job in order; with several workers, two jobs for each are under way."""
    if workers == 1:
        yield from ((job[0], sketch(*job)) for job in jobs)
        return
    waiting: deque[tuple[list[str], Future[tuple[Batch, Hashes]]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job in jobs:
            waiting.append((job[0], pool.submit(sketch, *job)))
            if len(waiting) >= 2 * workers:
                texts, result = waiting.popleft()
                yield texts, result.result()
        while waiting:
            texts, result = waiting.popleft()
            yield texts, result.result()


class _Kept:
    """Appends batches to files, and remembers what is small."""

    def __init__(self, folder: Path, apart: bool, names: Sequence[str] = ()) -> None:
        """`apart` keeps the domains' bands from ever agreeing; domains have the numbers of their `names`, others later ones."""
        self.folder, self.apart = folder, apart
        self._marks: list[bytes] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._domains: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._names = {name: number for number, name in enumerate(names)}
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> _Kept:
        self._files = [(self.folder / name).open("wb") for name in ("shingles", "bands")]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def note(self, batch: list[Document]) -> tuple[list[str], list[int]]:
        """(Texts, numbers that tell apart what may not meet)."""
        numbers = [self._names.setdefault(document.domain, len(self._names)) for document in batch]
        self._marks.append(b"".join(bytes.fromhex(document.sha256) for document in batch))
        self._lengths.append(np.array([len(document.text) for document in batch], dtype=np.int64))
        self._domains.append(np.array(numbers, dtype=np.int64))
        return [document.text for document in batch], numbers if self.apart else [0] * len(batch)

    def add(self, sets: Batch, hashes: Hashes) -> None:
        """The result of the oldest batch that has none."""
        self._files[0].write(sets.hashes.data)
        self._files[1].write(hashes.data)
        self._counts.append(np.diff(sets.offsets))

    def sketches(self, bands: int) -> Sketches:
        marks = np.frombuffer(b"".join(self._marks), ">u8").astype(np.uint64).reshape(-1, 4)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(_joined(self._counts))])
        return Sketches(
            shingles=Batch(_map(self.folder / "shingles"), offsets),
            bands=_map(self.folder / "bands").reshape(-1, bands),
            marks=marks,
            lengths=_joined(self._lengths),
            domains=_joined(self._domains),
            names=list(self._names),
        )


def _map(path: Path) -> Hashes:
    if not path.stat().st_size:
        return np.zeros(0, np.uint64)
    return cast(Hashes, np.memmap(path, np.uint64, "r"))


def _joined(parts: list[NDArray[np.int64]]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *parts])
