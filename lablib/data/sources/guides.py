"""How-to prose: the user guides that ship with Trac, a project tracker (BSD). Small: the domain that epoch limits bind."""

from __future__ import annotations

from collections.abc import Iterator

from lablib.data.documents import decode
from lablib.data.packages import Package, members
from lablib.data.sources.pinned import Pinned

TRAC = Package(
    "trac",
    "1.6",
    "Trac-1.6-py3-none-any.whl",
    "5ff2f3394ebee7cc5b8ee465871cfdecb78ee492a74215b47b6d9ddbcc93b5f7",
    2_876_098,
    "BSD-3-Clause",
)


def read_pages(package: Package) -> Iterator[tuple[str, str]]:
    """Each wiki page as its authors wrote it."""
    for name, data in members(package.path, r"/default-pages/\w+$"):
        yield name, decode(data)


GUIDES = Pinned("guides", (TRAC,), read_pages)
