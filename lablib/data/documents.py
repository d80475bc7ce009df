"""`Document`, the unit of every corpus, and `Source`, anything that yields documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Report = Callable[[float, float], None]
"""Called with (done, in all) in bytes or characters while work goes on, 0 where the end is not known; may raise to stop."""


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

    @property
    def sha256(self) -> str:
        """64 hex digits of the text's UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Source(Protocol):
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

    def documents(self) -> Iterator[Document]:
        """All documents in a fixed order."""


def decode(data: bytes) -> str:
    """UTF-8 text with Unix line ends and no NUL; bytes that are not UTF-8 become U+FFFD."""
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def file_sha256(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
