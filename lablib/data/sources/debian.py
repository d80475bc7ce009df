"""Text in Debian's archive, unpacked without installing: Jane Austen's novels and three free dictionaries. An extra."""

from __future__ import annotations

import gzip
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lablib.data import packages
from lablib.data.documents import Document, Report, decode, file_sha256, silent
from lablib.data.sources import rdb
from lablib.specs import LabError, digest, paths

ENTRY_PAGE = 4000
"""Characters of dictionary entries put together as one document."""
Reader = Callable[[Path], Iterator[tuple[str, str]]]
"""Yields (name, text) from an unpacked package."""


@dataclass(frozen=True)
class Debian:
    """A domain read from .deb files, in whatever version this system's archive has."""

    domain: str
    packages: tuple[tuple[str, str], ...]
    """(Package, licence of its text)."""
    read: Reader
    download_bytes: int

    def unavailable(self) -> str:
        """Names the Debian tool that is missing."""
        lacking = [tool for tool in ("apt-get", "dpkg-deb") if packages.missing(tool)]
        return f"there is no {' and no '.join(lacking)}; this extra needs Debian or Ubuntu" if lacking else ""

    def fetch(self, report: Report = silent) -> None:
        """``apt-get download`` what is not cached; nothing is installed. Raises `LabError`."""
        for name, _ in self.packages:
            if not self._cached(name):
                self._download(name)
        report(self.download_bytes, self.download_bytes)

    def fingerprint(self) -> str:
        """Of the .deb files' checksums."""
        return digest([self.domain, *(file_sha256(self._cached(name)[0]) for name, _ in self.packages)])

    def documents(self) -> Iterator[Document]:
        """Texts in the order of packages."""
        for name, licence in self.packages:
            file = self._cached(name)[0]
            with tempfile.TemporaryDirectory(prefix="deb-") as folder:
                subprocess.run(["dpkg-deb", "-x", str(file), folder], check=True, capture_output=True)
                for title, text in self.read(Path(folder)):
                    yield Document(self.domain, f"deb:{file.stem}/{title}", licence, text)

    def _cached(self, name: str) -> list[Path]:
        return sorted((paths.assets() / "debian").glob(f"{name}_*.deb"))

    def _download(self, name: str) -> None:
        if reason := self.unavailable():
            raise LabError(f"{name} cannot be fetched: {reason}")
        folder = paths.assets() / "debian"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            try:
                packages.run_client(["apt-get", "download", name], f"deb:{name}", folder, cwd=Path(temporary))
            except LabError as error:
                raise LabError(f"{error}\nIf the package lists are missing, `apt-get update` brings them") from None
            for file in Path(temporary).glob("*.deb"):
                file.replace(folder / file.name)


def read_novels(folder: Path) -> Iterator[tuple[str, str]]:
    """Each novel in the R package's database."""
    for file in sorted(folder.rglob("Rdata.rdx")):
        for title, lines in sorted(rdb.load(file.with_suffix("")).items()):
            yield title, "\n".join(lines)


def read_dictionary(folder: Path) -> Iterator[tuple[str, str]]:
    """Entries of a dictd file, some thousand characters a document (a .dz file is gzip)."""
    for file in sorted(folder.rglob("*.dict.dz")):
        page: list[str] = []
        for number, entry in enumerate(re.split(r"\n(?=\S)", decode(gzip.decompress(file.read_bytes())))):
            page.append(entry)
            if sum(map(len, page)) > ENTRY_PAGE:
                yield f"{file.name}#{number}", "\n".join(page)
                page = []
        yield f"{file.name}#end", "\n".join(page)


BOOKSHELF = Debian("novels", (("r-cran-janeaustenr", "public domain (package MIT)"),), read_novels, 1_626_392)
DICTIONARIES = Debian(
    "dictionary",
    (("dict-devil", "public domain"), ("dict-foldoc", "GFDL-1.1+"), ("dict-jargon", "public domain")),
    read_dictionary,
    3_210_194,
)
