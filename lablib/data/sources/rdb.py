"""Text out of R's lazy-load databases without R: the part of its serialisation that character vectors use.

Format: R Internals, "Serialization Formats" (version 2 and 3, XDR). An ``.rdx`` file indexes an ``.rdb`` file, in which
each object is a big-endian length and a compressed stream.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

from lablib.specs import LabError

_SYMBOL, _PAIRLIST, _STRING, _LOGICAL, _INTEGER, _REAL, _TEXTS, _LIST = 1, 2, 9, 10, 13, 14, 16, 19
_EMPTY = frozenset({241, 242, 251, 253, 254})
"""Base, empty and global environments, missing argument, nil: singletons with nothing to read."""
_REFERENCE = 255


def load(stem: Path) -> dict[str, list[str]]:
    """The character vectors of ``<stem>.rdx`` and ``.rdb`` by name. Raises `LabError` for anything else."""
    try:
        index = _Reader(zlib.decompress(stem.with_suffix(".rdx").read_bytes(), 31)).top()
        data = stem.with_suffix(".rdb").read_bytes()
        return {name: _texts(data[at : at + size]) for name, (at, size) in index["variables"].items()}
    except (OSError, zlib.error, struct.error, KeyError, TypeError, ValueError) as error:
        raise LabError(f"{stem}.rdb is not an R database of texts that the lab can read: {error}") from None


def _texts(chunk: bytes) -> list[str]:
    return [line or "" for line in _Reader(_inflate(chunk)).top()]


def _inflate(chunk: bytes) -> bytes:
    """Four bytes of length come first; then a letter tells the compression, or zlib's own header does."""
    body = chunk[4:]
    if body[:1] == b"2":
        return bz2.decompress(body[1:])
    return lzma.decompress(body[1:]) if body[:1] == b"Z" else zlib.decompress(body)


class _Reader:
    """Walks one serialised object."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._symbols: list[Any] = []

    def top(self) -> Any:
        """The object; raises ValueError or struct.error where the bytes are not one."""
        if self._take(2) != b"X\n":
            raise ValueError("not in XDR form")
        version = self._int()
        self._take(8)  # versions of R that wrote it and can read it
        if version == 3:
            self._take(self._int())  # native encoding's name
        return self._item()

    def _take(self, count: int) -> bytes:
        self._at += count
        if count < 0 or self._at > len(self._data):
            raise ValueError("it ends too early")
        return self._data[self._at - count : self._at]

    def _int(self) -> int:
        return int(struct.unpack(">i", self._take(4))[0])

    def _item(self) -> Any:
        flags = self._int()
        kind, attributed, tagged = flags & 0xFF, flags & 0x200, flags & 0x400
        if kind in _EMPTY:
            return None
        if kind == _REFERENCE:
            return self._symbols[(flags >> 8 or self._int()) - 1]
        if kind == _SYMBOL:
            self._symbols.append(self._item())
            return self._symbols[-1]
        if kind == _PAIRLIST:
            return self._pairs(bool(attributed), bool(tagged))
        return self._vector(kind, bool(attributed))

    def _pairs(self, attributed: bool, tagged: bool) -> dict[Any, Any]:
        if attributed:
            self._item()
        tag = self._item() if tagged else None
        value, rest = self._item(), self._item()
        return {tag: value, **(rest or {})}

    def _vector(self, kind: int, attributed: bool) -> Any:
        count = self._int()
        if kind == _STRING:
            return None if count == -1 else self._take(count).decode("utf-8", "replace")
        value: Any
        if kind in (_LOGICAL, _INTEGER):
            value = [self._int() for _ in range(count)]
        elif kind == _REAL:
            value = list(struct.unpack(f">{count}d", self._take(8 * count)))
        elif kind in (_TEXTS, _LIST):
            value = [self._item() for _ in range(count)]
        else:
            raise ValueError(f"it holds an object of type {kind}")
        names = (self._item() or {}).get("names") if attributed else None
        return dict(zip(names, value, strict=True)) if kind == _LIST and names else value
