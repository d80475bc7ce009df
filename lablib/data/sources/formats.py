"""How each format of file is read: rows of JSON lines and Parquet (`tables`), web archives, tar files of texts, one text."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import streams, tables, webarchive
from lablib.data.sources.tables import UNSTATED, Stretch, damaged

PROSE = frozenset({".txt", ".md", ".rst", ".tex", ".html"})
CODE = frozenset(
    [
        ".py",
        ".c",
        ".h",
        ".cpp",
        ".rs",
        ".go",
        ".java",
        ".js",
        ".ts",
        ".cc",
        ".cs",
        ".css",
        ".cu",
        ".cuh",
        ".hpp",
        ".hs",
        ".jl",
        ".jsx",
        ".kt",
        ".lua",
        ".ml",
        ".php",
        ".pl",
        ".pyi",
        ".r",
        ".rb",
        ".scala",
        ".sh",
        ".sql",
        ".swift",
        ".tsx",
        ".zig",
    ]
)
TEXT = PROSE | CODE
"""Endings of files that are one document each."""
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+()-]+(?: [\w.+()][\w.+()-]*)*)")
"""How a file names its own licence (SPDX 2.3, annex E); what ends a comment is no part of it."""
HEAD = 2000
"""Bytes from the start in which a file names it."""

Found = Iterator[Document | Unreadable]
Reader = Callable[[Path, str, str], Found]
"""(path, domain, source) → what the file holds."""


def reader(name: str) -> Reader | None:
    """What reads a file of this name, None where nothing does. Any of them may be compressed (`streams.COMPRESSED`)."""
    inner = PurePosixPath(streams.inner_name(name))
    return BY_ENDING.get(inner.suffix) or (_text if inner.suffix in TEXT else None)


def read(path: Path, domain: str, source: str, stretch: Stretch | None = None) -> Found:
    """What a file holds, or a `stretch` of one, by its ending; an unknown one is read as text. An empty file is set aside."""
    if not path.stat().st_size:
        yield Unreadable(domain, source, "file is empty")
    elif stretch is not None:
        yield from tables.TABLES[path.suffix.lower()].read(path, domain, source, stretch)
    else:
        yield from (reader(path.name) or _text)(path, domain, source)


def cut(path: Path, size: float) -> list[Stretch]:
    """Stretches of at least `size` bytes that a file of rows can be read in, one after the other; none where it stays whole."""
    table = tables.TABLES.get(path.suffix.lower())
    return table.cut(path, int(path.stat().st_size // size)) if table and path.stat().st_size >= 2 * size else []


def _text(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        data = streams.whole(stream)
        if stream.damage:
            yield damaged(stream, domain, source)
        else:
            yield _one(data, domain, source)


def _one(data: bytes | None, domain: str, source: str) -> Document | Unreadable:
    if data is None:
        return Unreadable(domain, source, "longer than a document may be")
    try:
        data.decode()
    except UnicodeDecodeError:
        return Unreadable(domain, source, "not UTF-8", decode(data[:2000]))
    named = SPDX.search(data[:HEAD].decode("utf-8", "replace"))
    return Document(domain, source, named[1].strip() if named else UNSTATED, decode(data))


def _web_archive(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        yield from webarchive.documents(stream, domain, source)
        if stream.damage:
            yield damaged(stream, domain, source)


def _tar(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                yield from (_member(archive, one, domain, f"{source}/{one.name}") for one in archive if _wanted(one))
        except (tarfile.TarError, *streams.DAMAGE) as error:
            if not stream.damage:
                yield Unreadable(domain, source, f"archive is damaged [{error}]")
        if stream.damage:
            yield damaged(stream, domain, source)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, domain: str, source: str) -> Document | Unreadable:
    body = archive.extractfile(member) if member.size <= streams.LONGEST else None
    return _one(body.read() if body else None, domain, source)


def _wanted(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    hidden = any(part.startswith(".") and part != "." for part in name.parts)
    return member.isfile() and not hidden and name.suffix.lower() in TEXT


BY_ENDING: dict[str, Reader] = {
    **{ending: table.read for ending, table in tables.TABLES.items()},
    ".warc": _web_archive,
    ".wet": _web_archive,
    ".tar": _tar,
}
"""Endings of files that hold many documents."""
