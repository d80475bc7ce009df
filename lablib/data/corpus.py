"""A corpus: sources read once, exact duplicates dropped, counts kept, stored by domain in a content-addressed folder.

Each domain is one file of JSON lines; ``corpus.json`` holds the counts, the sources' licences and the corpus' hash,
which covers every document's text and domain and nothing of when or where it was built.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from lablib.data.documents import Document, Report, Source, silent
from lablib.specs import LabError, digest, write_atomic

VERSION = 1
"""Raised when the same sources would give other documents, so that old caches are left alone."""
SHORTEST = 32
"""Characters; shorter documents teach nothing and are counted as dropped."""


@dataclass
class Funnel:
    """What happened to one domain's documents."""

    docs: int = 0
    bytes: int = 0
    """Of UTF-8 text that was kept."""
    duplicates: int = 0
    short: int = 0


def key(sources: Sequence[Source], limit: int | None = None) -> str:
    """Name of the folder that the corpus belongs in; call after the sources are fetched."""
    return digest([VERSION, limit, *(source.fingerprint() for source in sources)])


def build(sources: Sequence[Source], folder: Path, report: Report = silent) -> None:
    """Read all sources into `folder`. Where two documents are equal, the first in order of sources stays."""
    funnels: dict[str, Funnel] = {}
    total = 0
    writer = Writer(folder)
    with writer:
        for document in _kept(sources, funnels):
            writer.add(document)
            total += len(document.text)
            report(total, 0)
    if not total:
        raise LabError("The corpus has no document: its sources hold no readable text of at least 32 characters")
    writer.describe({name: vars(funnel) for name, funnel in funnels.items()})


class Writer(AbstractContextManager["Writer"]):
    """Writes a corpus document by document, and at its end says what is in it."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists and is empty."""
        self.folder = folder
        self._files: dict[str, TextIO] = {}
        self._licences: dict[str, Counter[tuple[str, str]]] = {}
        self._sizes: dict[str, list[int]] = {}
        self._lines: list[str] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, document: Document) -> None:
        """Append a document to its domain."""
        name, digested = document.domain, document.sha256
        if name not in self._files:
            path = self.folder / f"{check_domain(name)}.jsonl"
            self._files[name] = path.open("w", encoding="utf-8")
        self._files[name].write(_row(document, digested))
        self._lines.append(f"{name} {digested}")
        self._licences.setdefault(name, Counter())[_origin(document), document.licence] += 1
        docs, size = self._sizes.get(name, [0, 0])
        self._sizes[name] = [docs + 1, size + len(document.text.encode())]

    def describe(self, read: Mapping[str, dict[str, Any]], funnel: Sequence[dict[str, Any]] = ()) -> None:
        """Write ``corpus.json``: the hash, each domain's counts and licences, beside what was counted when it was `read`,
        and the rows of the funnel's steps so far."""
        domains = {}
        for name, counted in sorted(read.items()):
            docs, size = self._sizes.get(name, [0, 0])
            sources = [
                {"source": source, "licence": licence, "docs": number}
                for (source, licence), number in sorted(self._licences.get(name, {}).items())
            ]
            domains[name] = {**counted, "docs": docs, "bytes": size, "sources": sources}
        hashed = hashlib.sha256("\n".join(sorted(self._lines)).encode()).hexdigest()
        facts = {"hash": hashed, "domains": domains, **({"funnel": list(funnel)} if funnel else {})}
        write_atomic(self.folder / "corpus.json", json.dumps(facts, indent=1, ensure_ascii=False))


def _kept(sources: Sequence[Source], funnels: dict[str, Funnel]) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in (document for source in sources for document in source.documents()):
        funnel = funnels.setdefault(document.domain, Funnel())
        mark = bytes.fromhex(document.sha256)
        if len(document.text.strip()) < SHORTEST:
            funnel.short += 1
        elif mark in seen:
            funnel.duplicates += 1
        else:
            seen.add(mark)
            funnel.docs, funnel.bytes = funnel.docs + 1, funnel.bytes + len(document.text.encode())
            yield document


def _origin(document: Document) -> str:
    """The package or set that a document's source names, without the file inside it."""
    return document.source.partition("/")[0]


def _row(document: Document, sha256: str) -> str:
    row = {"source": document.source, "licence": document.licence, "sha256": sha256, "text": document.text}
    return json.dumps({**row, "label": document.label} if document.label else row, ensure_ascii=False) + "\n"


def check_domain(name: str) -> str:
    """A domain's name becomes a file's name. Raises `LabError` for one that cannot."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise LabError(f"domain={name!r}: use 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    return name


def slug(text: str) -> str:
    """A domain name made of any text, such as a folder's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "text"


@dataclass(frozen=True)
class Corpus:
    """A built corpus on disk."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What ``corpus.json`` says: the hash, and per domain docs, bytes, duplicates, short, sources."""
        found: dict[str, Any] = json.loads((self.folder / "corpus.json").read_text(encoding="utf-8"))
        return found

    @property
    def hash(self) -> str:
        """64 hex digits over all (domain, text), whatever their order."""
        return str(self.facts["hash"])

    @property
    def funnel(self) -> list[dict[str, Any]]:
        """What each step of the funnel counted, in order; empty for a corpus as it was read."""
        return list(self.facts.get("funnel", []))

    @property
    def domains(self) -> list[str]:
        """Names of the domains that hold a document, sorted."""
        return sorted(name for name, facts in self.facts["domains"].items() if facts["docs"])

    def bytes(self, domain: str) -> int:
        """UTF-8 bytes of a domain's text."""
        return int(self.facts["domains"][domain]["bytes"])

    def documents(self, domain: str) -> Iterator[Document]:
        """A domain's documents in the order in which they were read."""
        with (self.folder / f"{domain}.jsonl").open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                yield Document(domain, row["source"], row["licence"], row["text"], row.get("label", ""))
