"""`Document`, the unit of every corpus, `Source`, anything that yields documents, and `Unreadable`, what it sets aside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[float, float], None]
"""Called with (done, in all) in bytes or characters while work goes on, 0 where the end is not known; may raise to stop."""


def held(report: Report, at: float = 0.0) -> Report:
    """A report that shows life, and heeds a stop, while the bar stays at this share of its phase."""
    return lambda done, total: report(at, 1)


def silent(done: float, total: float) -> None:
    """A report that nobody reads."""


@dataclass(frozen=True)
class Document:
    """One text with its provenance; equal texts have equal `sha256`, whatever their source."""

    domain: str
    source: str
    """Where it was found, such as ``pypi:sympy==1.14.0/sympy/core/add.py``."""
    licence: str
    text: str
    label: str = ""
    """A class that the source itself states (``ham``, ``spam``); empty where there is none."""
    url: str = ""
    """Address on the web; empty where it has none or none is known."""
    time: str = ""
    """When it was written or fetched, in ISO 8601; empty where that is not known."""
    synthetic: float = 0.0
    """Share of the text that a model wrote, 0 to 1."""
    generation: int = 0
    """0: people wrote it; n + 1: made from text of generation n (`lablib.data.mixing.collapse`)."""

    @property
    def sha256(self) -> str:
        """64 hex digits of the text's UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """Those of url, time, synthetic and generation that say something: `Document` takes them as keywords."""
        found = {"url": self.url, "time": self.time, "synthetic": self.synthetic, "generation": self.generation}
        return {name: value for name, value in found.items() if value}


PROVENANCE = ("url", "time", "synthetic", "generation")
"""Fields of `Document.provenance`."""


@dataclass(frozen=True)
class Unreadable:
    """Something that a source holds and that is no document: it is counted and set aside."""

    domain: str
    source: str
    reason: str
    """In a few words; what stands in brackets at its end is of this one alone, and is not counted apart."""
    text: str = ""
    """Its beginning, as far as it can be shown."""

    @property
    def kind(self) -> str:
        """The reason that is counted."""
        return self.reason.partition(" [")[0]


class Readable(Protocol):
    """What yields documents; ``str`` of it is what an error calls it."""

    def documents(self) -> Iterator[Document | Unreadable]:
        """All documents in a fixed order, and between them whatever could not be read."""


class Source(Readable, Protocol):
    """A supply of documents that is identified before it is read."""

    @property
    def download_bytes(self) -> int:
        """Most bytes that `fetch` may bring over the network; 0 where nothing is fetched or the size is unknown."""

    def unavailable(self) -> str:
        """Why this machine cannot have it, with the remedy; empty where it can."""

    def fetch(self, report: Report = silent) -> None:
        """Bring what is missing into the cache. Raises `LabError` with the remedy."""

    def fingerprint(self) -> str:
        """Changes exactly when the documents may: of checksums, never of times. Call it after `fetch`."""


def decode(data: bytes) -> str:
    """UTF-8 text with Unix line ends and no NUL; bytes that are not UTF-8 become U+FFFD."""
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def file_sha256(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
