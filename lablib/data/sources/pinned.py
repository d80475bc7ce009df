"""`Pinned`: a domain read from pinned packages. The corpus `core` consists of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lablib.data import packages
from lablib.data.documents import Document, Report, silent
from lablib.data.packages import Package
from lablib.specs import digest

Reader = Callable[[Package], Iterator[tuple[str, str]]]
"""Yields (name inside the package, text) from a fetched package."""


@dataclass(frozen=True)
class Pinned:
    """One domain: packages, and how text is read from them."""

    domain: str
    packages: tuple[Package, ...]
    read: Reader
    licence: str = ""
    """Of the text, where it is not the package's own."""

    @property
    def download_bytes(self) -> int:
        """Size of all packages."""
        return sum(package.bytes for package in self.packages)

    def unavailable(self) -> str:
        """Pinned packages can be had wherever pip works."""
        return ""

    def fetch(self, report: Report = silent) -> None:
        """Bring the packages into the cache. Raises `LabError`."""
        packages.fetch_all(self.packages, report)

    def fingerprint(self) -> str:
        """Of the packages' checksums and the reader's name."""
        return digest([self.domain, self.read.__name__, *(package.sha256 for package in self.packages)])

    def documents(self) -> Iterator[Document]:
        """Texts in the order of packages and names."""
        for package in self.packages:
            for name, text in self.read(package):
                yield Document(self.domain, f"{package}/{name}", self.licence or package.licence, text)
