"""What this machine has anyway: the Python standard library and the packages installed beside it."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lablib.data.documents import Document, Report, decode, silent
from lablib.specs import digest

LARGEST = 150_000
"""Bytes; longer modules are mostly generated tables."""
_SKIPPED = frozenset(
    {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"}
)


@dataclass(frozen=True)
class Tree:
    """Python files below one of this installation's own folders."""

    domain: str
    place: str
    """Which of `sysconfig`'s paths."""
    licence: str
    download_bytes: int = 0

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(sysconfig.get_paths()[self.place])

    def unavailable(self) -> str:
        """Every Python has these."""
        return "" if self.root.is_dir() else f"Python has no folder {self.place!r} here"

    def fetch(self, report: Report = silent) -> None:
        """Nothing to bring."""

    def fingerprint(self) -> str:
        """Of the Python version and the installed packages' versions."""
        installed = sorted(f"{item.name}=={item.version}" for item in metadata.distributions())
        return digest([self.domain, platform.python_version(), *(installed if self.place == "purelib" else [])])

    def documents(self) -> Iterator[Document]:
        """Modules sorted by path, without tests; a file that cannot be read is passed over."""
        for path in sorted(self.root.rglob("*.py")):
            inside = path.relative_to(self.root)
            if _SKIPPED.isdisjoint(inside.parts) and path.is_file() and path.stat().st_size <= LARGEST:
                yield Document(
                    self.domain, f"{self.domain}/{inside.as_posix()}", self.licence, decode(path.read_bytes())
                )


STDLIB = Tree("stdlib", "stdlib", "PSF-2.0")
INSTALLED = Tree("installed", "purelib", "of each package")
