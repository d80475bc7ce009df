"""Corpora by name: ``core``, extras of this machine, your own folder or file, a data set of the hub."""

from __future__ import annotations

from lablib.data.documents import Source
from lablib.data.sources.books import BOOKS
from lablib.data.sources.code import CODE
from lablib.data.sources.debian import BOOKSHELF, DICTIONARIES
from lablib.data.sources.dialogue import DIALOGUE
from lablib.data.sources.files import Files
from lablib.data.sources.guides import GUIDES
from lablib.data.sources.hub import Hub
from lablib.data.sources.machine import INSTALLED, STDLIB
from lablib.data.sources.mail import MAIL
from lablib.data.sources.reference import REFERENCE
from lablib.specs import LabError, paths

CORE: tuple[Source, ...] = (DIALOGUE, CODE, REFERENCE, BOOKS, GUIDES)
"""Pinned by version and SHA-256: the same documents on every machine. 48 MB to download, 59 MB of text."""
EXTRAS: dict[str, tuple[Source, ...]] = {
    "stdlib": (STDLIB,),
    "installed": (INSTALLED,),
    "mail": (MAIL,),
    "debian": (BOOKSHELF, DICTIONARIES),
}
"""What this machine, npm or Debian add; other machines have other versions, so their hash differs."""
NAMES = ("core", *EXTRAS, "local")


def sources_of(corpus: str, max_bytes: int | None = None) -> tuple[Source, ...]:
    """The sources that a recipe's `corpus` means.

    A name, several joined by ``+`` (``core+mail``), ``local`` (every extra that this machine can have), a folder or file
    of any form that `lablib.data.sources.formats` reads, a pattern of files (``crawl/*.warc.gz``), or ``hf:<data set>[:<config>[:<split>]]``. Raises `LabError` where it is none of these, or
    where an extra was named that this machine cannot have.
    """
    if corpus.startswith("hf:"):
        return (Hub.parse(corpus, max_bytes),)
    words = corpus.split("+")
    if all(word in NAMES for word in words):
        return tuple(dict.fromkeys(source for word in words for source in _named(word)))
    path, pattern = paths.rooted(corpus)
    if any(path.glob(pattern)) if pattern else path.exists():
        return (Files(path, pattern),)
    raise LabError(
        f"corpus={corpus!r} is not one of {', '.join(NAMES)} (join names with +), nor a folder, file or pattern of files here; "
        "write hf:<data set> for a data set of the hub"
    )


def _named(word: str) -> tuple[Source, ...]:
    if word == "core":
        return CORE
    if word == "local":
        return tuple(source for extra in EXTRAS.values() for source in extra if not source.unavailable())
    for source in EXTRAS[word]:
        if reason := source.unavailable():
            raise LabError(f"corpus={word!r} cannot be had on this machine: {reason}")
    return EXTRAS[word]
