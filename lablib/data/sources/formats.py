"""How each format of file is read: rows of JSON lines and Parquet, web archives, tar files of texts, one text."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lablib.data.corpus import slug
from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import rows, streams, webarchive

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
UNSTATED = "not stated (your own files)"
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+()-]+(?: [\w.+()][\w.+()-]*)*)")
"""How a file names its own licence (SPDX 2.3, annex E); what ends a comment is no part of it."""
HEAD = 2000
"""Bytes from the start in which a file names it."""
BATCH = 256
"""Rows of a Parquet file that are decoded at once."""

Found = Iterator[Document | Unreadable]
Reader = Callable[[Path, str, str], Found]
"""(path, domain, source) → what the file holds."""


def reader(name: str) -> Reader | None:
    """What reads a file of this name, None where nothing does. Any of them may be compressed (`streams.COMPRESSED`)."""
    inner = PurePosixPath(streams.inner_name(name))
    return BY_ENDING.get(inner.suffix) or (_text if inner.suffix in TEXT else None)


def read(path: Path, domain: str, source: str) -> Found:
    """What a file holds, by its ending; an unknown one is read as text. An empty file is set aside."""
    if not path.stat().st_size:
        yield Unreadable(domain, source, "file is empty")
        return
    yield from (reader(path.name) or _text)(path, domain, source)


def _text(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        data = streams.whole(stream)
        if stream.damage:
            yield _damaged(stream, domain, source)
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


def _json_lines(path: Path, domain: str, source: str) -> Found:
    seen: set[int] = set()
    with streams.Stream(path) as stream:
        for number, line in enumerate(streams.lines(stream), 1):
            if line is None or line.strip():
                yield _row(line, domain, f"{source}#{number}", seen)
        if stream.damage:
            yield _damaged(stream, domain, source)


def _row(line: bytes | None, domain: str, source: str, seen: set[int]) -> Document | Unreadable:
    if line is None:
        return Unreadable(domain, source, "longer than a document may be")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Unreadable(domain, source, "not UTF-8", decode(line[:2000]))
    except (ValueError, RecursionError) as error:
        return Unreadable(domain, source, f"row is not JSON [{error}]", decode(line[:2000]))
    return _of_row(row, domain, source, seen)


def _of_row(row: Any, domain: str, source: str, seen: set[int]) -> Document | Unreadable:
    """Ids are compared within one file: numbering may begin again in the next."""
    if isinstance(row, dict):
        domain = slug(str(row["domain"])) if row.get("domain") else domain
        source = str(row.get("source") or source)
        if isinstance(name := row.get("id"), str | int) and name != "":
            mark = hash(repr(name))  # -1 and -2 have one hash
            if mark in seen:
                return Unreadable(domain, source, f"id that another row has [{name}]", str(row.get("text", "")))
            seen.add(mark)
    return rows.document(row, domain, source, UNSTATED)


def _parquet(path: Path, domain: str, source: str) -> Found:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    seen: set[int] = set()
    number = 0
    try:
        with ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in rows.COLUMNS]
            for batch in file.iter_batches(BATCH, columns=columns):
                for at in range(batch.num_rows):
                    number += 1
                    yield _cells(batch.slice(at, 1), domain, f"{source}#{number}", seen)
    except (pyarrow.ArrowException, *streams.DAMAGE) as error:
        yield Unreadable(domain, source, f"file is cut short or damaged [{' '.join(str(error).split())[:100]}]")


def _cells(row: Any, domain: str, source: str, seen: set[int]) -> Document | Unreadable:
    try:
        (found,) = row.to_pylist() or [{}]
    except UnicodeDecodeError:
        return Unreadable(domain, source, "not UTF-8")
    except (ValueError, OverflowError, LookupError) as error:  # a date after the year 9999, an unknown time zone
        return Unreadable(domain, source, f"row cannot be read [{error}]")
    return _of_row(found, domain, source, seen)


def _web_archive(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        yield from webarchive.documents(stream, domain, source)
        if stream.damage:
            yield _damaged(stream, domain, source)


def _tar(path: Path, domain: str, source: str) -> Found:
    with streams.Stream(path) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                yield from (_member(archive, one, domain, f"{source}/{one.name}") for one in archive if _wanted(one))
        except (tarfile.TarError, *streams.DAMAGE) as error:
            if not stream.damage:
                yield Unreadable(domain, source, f"archive is damaged [{error}]")
        if stream.damage:
            yield _damaged(stream, domain, source)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, domain: str, source: str) -> Document | Unreadable:
    body = archive.extractfile(member) if member.size <= streams.LONGEST else None
    return _one(body.read() if body else None, domain, source)


def _wanted(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    hidden = any(part.startswith(".") and part != "." for part in name.parts)
    return member.isfile() and not hidden and name.suffix.lower() in TEXT


def _damaged(stream: streams.Stream, domain: str, source: str) -> Unreadable:
    return Unreadable(domain, source, f"file is cut short or damaged [{stream.damage}]")


BY_ENDING: dict[str, Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".warc": _web_archive,
    ".wet": _web_archive,
    ".tar": _tar,
}
"""Endings of files that hold many documents."""
