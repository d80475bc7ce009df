"""Your own text: a folder or a file of texts, source code, JSON lines, Parquet, WARC, WET or tar, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lablib.data.corpus import slug
from lablib.data.documents import Document, Report, Unreadable, file_sha256, silent
from lablib.data.sources import formats, streams
from lablib.data.sources.tables import Stretch
from lablib.specs import LabError, digest

MOST = 4096
"""Parts of a folder: their products lie in one folder of the cache, and each worker looks at every name."""
VERSION = 5
"""Raised when the same files would give other documents."""


class Piece(NamedTuple):
    """A file of a part, or a stretch of one."""

    path: Path
    stretch: Stretch | None = None


@dataclass(frozen=True)
class Files:
    """A folder or file. In a folder, each subfolder at its top is a domain, and files beside them share the folder's name."""

    path: Path
    pattern: str = ""
    """Which files of a folder, as ``*/*.warc.gz``; all of them where it is empty."""
    download_bytes: int = 0
    only: tuple[Piece, ...] = ()
    """What a part has; empty for all files."""

    def __str__(self) -> str:
        return str(self.path / self.pattern)

    def unavailable(self) -> str:
        """Says where the path has gone, if it has."""
        return "" if self.path.exists() else f"there is no {self.path}"

    def fetch(self, report: Report = silent) -> None:
        """Nothing to bring; raises `LabError` where there is no file that can be read."""
        if not self.files():
            endings = ", ".join([*formats.BY_ENDING, *sorted(formats.TEXT)])
            packed = ", ".join(streams.COMPRESSED)
            raise LabError(f"{self} holds no text: files must end in {endings}, and may be compressed ({packed})")

    def files(self) -> list[Path]:
        """Readable files, sorted by name; hidden ones are left out."""
        if self.only:
            return list(dict.fromkeys(piece.path for piece in self.only))
        if self.path.is_file():
            return [self.path]
        found = (
            path for path in self.path.glob(self.pattern or "**/*") if formats.reader(path.name) and path.is_file()
        )
        return sorted(path for path in found if not any(part.startswith(".") for part in self._inside(path).parts))

    def fingerprint(self, sums: Sequence[Sequence[str]] = ()) -> str:
        """Of names inside the folder and contents, which are read unless their `sums` are given."""
        return digest([VERSION, streams.LONGEST, self.path.name, *(sums or self.sums())])

    def sums(self, report: Report = silent) -> list[list[str]]:
        """(Name inside the folder, SHA-256) of each file; `report` hears how many of them."""
        files, made = self.files(), list[list[str]]()
        for path in files:
            report(len(made), len(files))
            made.append([str(self._inside(path)), file_sha256(path)])
        return made

    def stamp(self) -> str:
        """Changes when a file is written: of names, sizes and times, without reading any."""
        stats = [(str(path.absolute()), path.stat()) for path in self.files()]
        return digest([[name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for name, one in stats])

    def parts(self, size: float, inside: bool = True) -> list[Files]:
        """What stands in a row, of together about `size` bytes, more where there would be over `MOST` parts.

        Files of rows of twice the size and more are cut too where they can be (`formats.cut`), unless only the places between
        files are wanted. A stretch that does not begin its file must be told what stands before it (`scale.stretches`).
        """
        sizes = {path: path.stat().st_size for path in self.files()}
        size = max(size, 1, sum(sizes.values()) / MOST)
        groups: list[list[Piece]] = []
        room = 0.0
        for path, whole in sizes.items():
            stretches = formats.cut(path, size) if inside else []
            for stretch in stretches or (None,):
                if room <= 0:
                    groups.append([])
                    room = size
                groups[-1].append(Piece(path, stretch))
                room -= whole / max(1, len(stretches))
        return [replace(self, only=tuple(group)) for group in groups]

    def documents(self) -> Iterator[Document | Unreadable]:
        """A document a text file, row or page; what cannot be read is said where it was found."""
        for path, stretch in self.only or [Piece(path) for path in self.files()]:
            yield from formats.read(path, self._domain(path), str(self._inside(path)), stretch)

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self.path) if self.path.is_dir() else Path(path.name)

    def _domain(self, path: Path) -> str:
        parts = self._inside(path).parts
        return slug(parts[0] if len(parts) > 1 else self.path.name.split(".")[0])
