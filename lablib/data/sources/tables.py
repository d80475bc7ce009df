"""Files of rows, JSON lines and Parquet: read whole, or in stretches that give what the whole file gives.

A row is named by its number in the file, and one with an earlier row's ``id`` is set aside. So a stretch must know how many
rows stand before it and which of its ids they have: `Table.scan` looks at a stretch for that without making documents.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.corpus import slug
from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import rows, streams

UNSTATED = "not stated (your own files)"
"""The licence of a file that names none."""
BATCH = 256
"""Rows of a Parquet file that are decoded at once."""
_ID = re.compile(rb'"(?:i|\\u0069)(?:d|\\u0064)"')
"""How a row that has an id must spell the name: most rows without one need not be parsed to be counted."""

Found = Iterator[Document | Unreadable]


@dataclass(frozen=True)
class Stretch:
    """Rows in a row: those that begin in bytes `begin` up to `end` of JSON lines, or those row groups of a Parquet file."""

    begin: int = 0
    end: int | None = None
    """None is the file's end."""
    row: int = 0
    """Rows before it."""
    earlier: Path | None = None
    """An ``.npy`` file of the ids (`mark`) that its rows share with rows before it; None where there are none."""

    def seen(self) -> set[int]:
        """Ids that are taken when the stretch begins."""
        return set(np.load(self.earlier).tolist()) if self.earlier else set()


class Scan(NamedTuple):
    """What the stretches behind one need to know of it."""

    rows: int
    ids: NDArray[np.uint64]
    """Of its rows that have one (`mark`), sorted, each once."""


@dataclass(frozen=True)
class Table:
    """How a format of rows is read, cut and scanned."""

    read: Callable[..., Found]
    """(path, domain, source, stretch) → what the rows hold."""
    cut: Callable[[Path, int], list[Stretch]]
    """(path, about how many) → stretches that are the file one after the other; none where it cannot be cut."""
    scan: Callable[[Path, Stretch], Scan]


def mark(name: str | int) -> int:
    """64 bits of an id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(name).encode(), digest_size=8).digest(), "little")


def damaged(stream: streams.Stream, domain: str, source: str) -> Unreadable:
    """What a damaged stream leaves."""
    return Unreadable(domain, source, f"file is cut short or damaged [{stream.damage}]")


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
            if (marked := mark(name)) in seen:
                return Unreadable(domain, source, f"id that another row has [{name}]", str(row.get("text", "")))
            seen.add(marked)
    return rows.document(row, domain, source, UNSTATED)


def _sorted(ids: Iterable[Any]) -> NDArray[np.uint64]:
    return np.unique(np.array([mark(name) for name in ids if isinstance(name, str | int) and name != ""], np.uint64))


def _lines(path: Path, stretch: Stretch) -> tuple[streams.Stream, Iterator[bytes | None]]:
    """The stream begins a byte before the stretch, so that a line that begins with the stretch is not passed over."""
    stream = streams.Stream(path, max(0, stretch.begin - 1))
    return stream, streams.lines(stream, None, math.inf if stretch.end is None else stretch.end, stretch.begin > 0)


def _read_lines(path: Path, domain: str, source: str, stretch: Stretch = Stretch()) -> Found:
    seen = stretch.seen()
    stream, lines = _lines(path, stretch)
    with stream:
        for number, line in enumerate(lines, stretch.row + 1):
            if line is None or line.strip():
                yield _row(line, domain, f"{source}#{number}", seen)
        if stream.damage:
            yield damaged(stream, domain, source)


def _cut_lines(path: Path, count: int) -> list[Stretch]:
    size = path.stat().st_size
    return [Stretch(size * n // count, size * (n + 1) // count) for n in range(count)]


def _scan_lines(path: Path, stretch: Stretch) -> Scan:
    stream, lines = _lines(path, stretch)
    names, count = [], 0
    with stream:
        for line in lines:
            count += 1
            if line is not None and _ID.search(line):
                names.append(_id_of(line))
    return Scan(count, _sorted(names))


def _id_of(line: bytes) -> Any:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row.get("id") if isinstance(row, dict) else None


def _read_parquet(path: Path, domain: str, source: str, stretch: Stretch = Stretch()) -> Found:
    """Row group by row group: one that is damaged ends early, and those behind it are read."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    damage = (pyarrow.ArrowException, *streams.DAMAGE)
    seen = stretch.seen()
    try:
        with ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in rows.COLUMNS]
            number, last = stretch.row, file.num_row_groups if stretch.end is None else stretch.end
            for group in range(stretch.begin, last):
                try:
                    yield from _read_group(file, group, columns, domain, source, number, seen)
                except damage as error:
                    yield _broken(error, domain, source)
                    seen.update(_ids(file, group))
                number += file.metadata.row_group(group).num_rows
    except damage as error:
        yield _broken(error, domain, source)


def _broken(error: BaseException, domain: str, source: str) -> Unreadable:
    return Unreadable(domain, source, f"file is cut short or damaged [{' '.join(str(error).split())[:100]}]")


def _read_group(
    file: Any, group: int, columns: list[str], domain: str, source: str, number: int, seen: set[int]
) -> Found:
    whole = True
    for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
        for at in range(batch.num_rows):
            number += 1
            try:
                (found,) = batch.slice(at, 1).to_pylist() or [{}]
            except UnicodeDecodeError:
                whole = False
                yield Unreadable(domain, f"{source}#{number}", "not UTF-8")
            except (
                ValueError,
                OverflowError,
                LookupError,
            ) as error:  # a date after the year 9999, an unknown time zone
                whole = False
                yield Unreadable(domain, f"{source}#{number}", f"row cannot be read [{error}]")
            else:
                yield _of_row(found, domain, f"{source}#{number}", seen)
    if not whole:
        seen.update(_ids(file, group))


def _ids(file: Any, group: int) -> set[int]:
    """Ids of a row group by themselves: as far as they can be read, whatever the rest of it is like."""
    import pyarrow

    names: list[Any] = []
    if "id" in file.schema_arrow.names:
        try:
            for batch in file.iter_batches(row_groups=[group], columns=["id"]):
                for at in range(batch.num_rows):
                    names.append(_cell(batch.column(0)[at]))
        except (pyarrow.ArrowException, *streams.DAMAGE):
            pass
    return set(_sorted(names).tolist())


def _cell(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, LookupError):
        return None


def _cut_parquet(path: Path, count: int) -> list[Stretch]:
    """Row groups, of about the same size together by what their footer says."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            groups = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
    except (pyarrow.ArrowException, *streams.DAMAGE):
        return []
    sizes = np.array([group.total_byte_size for group in groups])
    middles = np.cumsum(sizes) - sizes / 2
    wanted = [sizes.sum() * n / count for n in range(1, count)]
    ends = sorted({*np.searchsorted(middles, wanted).tolist(), len(groups)} - {0})
    return [Stretch(begin, end) for begin, end in zip([0, *ends], ends, strict=False)] if len(ends) > 1 else []


def _scan_parquet(path: Path, stretch: Stretch) -> Scan:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        groups = range(stretch.begin, file.num_row_groups if stretch.end is None else stretch.end)
        ids = sorted(set[int]().union(*(_ids(file, group) for group in groups)))
        return Scan(sum(file.metadata.row_group(group).num_rows for group in groups), np.array(ids, np.uint64))


_LINES = Table(_read_lines, _cut_lines, _scan_lines)
TABLES: dict[str, Table] = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".parquet": Table(_read_parquet, _cut_parquet, _scan_parquet),
}
"""By ending. A compressed file of JSON lines has another one, and is not cut: it can only be read from its beginning."""
