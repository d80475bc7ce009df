"""Files as streams of bytes: decompressed by their ending, of bounded memory, and with what is left of a damaged one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST = 2**27
"""Bytes of a row, page or text file; longer ones are set aside unread. All of enwik8 (100 MB) is one text below it."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of compressed files: the standard library reads the first three, pyarrow the last."""
CHUNK = 2**16
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What the libraries raise where a file is cut short or is not what its ending says."""


def inner_name(name: str) -> str:
    """A file's name in lower case without the ending of its compression; ``.tgz`` is ``.tar.gz``."""
    name = name.lower()
    name = name.removesuffix(".tgz") + ".tar.gz" if name.endswith(".tgz") else name
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name


class Stream(io.RawIOBase):
    """The decompressed bytes of a file. Damage ends it early, and stands in `damage`: what came before is not lost."""

    def __init__(self, path: Path, begin: int = 0) -> None:
        """Opens the file, one that is not compressed at byte `begin`; it is a context manager, as files are."""
        self._file: Any = None
        self._at = begin
        self.damage = ""
        """What is wrong, in the library's words; empty as long as nothing is."""
        try:
            self._file = _opened(path)
            if begin:
                self._file.seek(begin)
        except DAMAGE as error:
            self.damage = _words(error)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one read gives; 0 at the end or at damage."""
        if self.damage:
            return 0
        try:
            found: bytes = self._file.read1(len(buffer))
        except DAMAGE as error:
            self.damage = _words(error)
            return 0
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def tell(self) -> int:
        """Where in the decompressed bytes it is; FastWARC asks."""
        return self._at

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()


def lines(
    stream: Stream, longest: int | None = None, end: float = math.inf, inside: bool = False
) -> Iterator[bytes | None]:
    """Lines without their ends, None for one of more than `longest` bytes; a last line that damage cut is left out.

    Only those that begin before byte `end`. A stream that stands `inside` a line, or at its last byte, passes over the rest.
    """
    longest = LONGEST if longest is None else longest
    at, buffered = stream.tell(), io.BufferedReader(stream, CHUNK)
    at += _pass_over(buffered, end - at) if inside else 0
    while at < end and (line := buffered.readline(longest + 1)):
        at += len(line)
        whole = line.endswith(b"\n")
        if len(line) > longest and not whole:
            at += _pass_over(buffered, math.inf)
            yield None
        elif whole or not stream.damage:
            yield line.rstrip(b"\r\n")


def _pass_over(buffered: Any, most: float) -> int:
    """Leave out the rest of a line, and say how many bytes those were; it ends where they are `most` or more."""
    size = 0
    while size < most and (rest := buffered.readline(CHUNK)):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return size


def whole(stream: Any, longest: int | None = None) -> bytes | None:
    """All bytes to the end of a stream, None where there are more than `longest`."""
    longest = LONGEST if longest is None else longest
    parts, size = [], 0
    while part := stream.read(CHUNK):
        size += len(part)
        if size > longest:
            return None
        parts.append(part)
    return b"".join(parts)


def _opened(path: Path) -> Any:
    ending = path.suffix.lower()
    if ending in (".gz", ".tgz"):
        return gzip.open(path, "rb")
    if ending == ".bz2":
        return bz2.open(path, "rb")
    if ending == ".xz":
        return lzma.open(path, "rb")
    if ending == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), CHUNK)
    return path.open("rb")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
