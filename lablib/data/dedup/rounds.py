"""Repeated text of a corpus in parts: what is seen of each part, by any worker, and what is gathered of all.

Two rounds, as in one pass over a whole corpus: counters of the windows' hashes (`RepeatedText.sieve`), then the windows that
the counters let through with the documents that hold them. What is gathered does not depend on the cut, for counters and
counts are sums and homes are minima.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lablib.data.corpus import Corpus
from lablib.data.dedup import windows
from lablib.data.dedup.windows import Found
from lablib.data.documents import Report, silent
from lablib.data.editing import every

if TYPE_CHECKING:
    from lablib.data.dedup.repeats import RepeatedText

COUNTERS, HOLDERS, FOUND = "counters.zst", "holders.npy", ("hashes", "documents", "home")


@dataclass(frozen=True)
class Sieving:
    """The first round (`lablib.data.editing.Look`)."""

    step: RepeatedText

    def see(self, part: Corpus, size: float, known: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """Counters of one part, in a sieve for the whole corpus of `size` bytes."""
        _save(self.step.sieve(every(part, report), size), folder)

    def gather(self, seen: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """The sum of all parts' counters; one that is full stays so."""
        whole = counters(seen[0])
        for number, part in enumerate(seen[1:], 1):
            report(number, len(seen))
            more = counters(part)
            np.add(whole, np.minimum(more, 255 - whole), out=whole)
        _save(whole, folder)


@dataclass(frozen=True)
class Finding:
    """The second round."""

    step: RepeatedText

    def see(self, part: Corpus, size: float, known: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """The windows of one part that may be repeated, and the documents with any."""
        _write(self.step.candidates(every(part, report), counters(known[0])), folder)

    def gather(self, seen: Sequence[Path], folder: Path, report: Report = silent) -> None:
        """The windows that enough documents of all parts share. Memory: 24 bytes for each one that may be repeated."""
        _write(windows.shared(windows.folded(_told(seen, report)), self.step.spec.least), folder)


def found(folder: Path, part: Path) -> Found:
    """What was gathered, for the documents of one part."""
    holders: list[int] = np.load(part / HOLDERS).tolist()
    hashes, documents, home = (np.load(folder / f"{name}.npy") for name in FOUND)
    return Found(hashes, documents, home, frozenset(holders))


def counters(folder: Path) -> NDArray[np.uint8]:
    """The counters that lie in a folder."""
    import pyarrow as pa

    with pa.CompressedInputStream(str(folder / COUNTERS), "zstd") as file:
        return np.frombuffer(file.read(), np.uint8).copy()


def _save(made: NDArray[np.uint8], folder: Path) -> None:
    import pyarrow as pa

    with pa.CompressedOutputStream(str(folder / COUNTERS), "zstd") as file:
        file.write(made.tobytes())


def _told(seen: Sequence[Path], report: Report) -> Iterator[Found]:
    for number, part in enumerate(seen):
        report(number, len(seen))
        yield found(part, part)


def _write(made: Found, folder: Path) -> None:
    for name in FOUND:
        np.save(folder / f"{name}.npy", getattr(made, name))
    np.save(folder / HOLDERS, np.array(sorted(made.holders), np.uint64))
