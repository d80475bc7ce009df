"""A corpus: sources read once, exact duplicates dropped, counts kept, stored by domain in a content-addressed folder.

Each domain is one file of JSON lines; ``corpus.json`` holds the counts, the sources' licences and the corpus' hash,
which covers every document's text and domain and nothing of when or where it was built.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
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
    licences: dict[str, Counter[tuple[str, str]]] = {}
    lines: list[str] = []
    total = 0
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for document in _kept(sources, funnels):
            if document.domain not in files:
                path = folder / f"{check_domain(document.domain)}.jsonl"
                files[document.domain] = stack.enter_context(path.open("w", encoding="utf-8"))
            digested = document.sha256
            files[document.domain].write(_row(document, digested))
            lines.append(f"{document.domain} {digested}")
            licences.setdefault(document.domain, Counter())[_origin(document), document.licence] += 1
            total += len(document.text)
            report(total, 0)
    if not lines:
        raise LabError("The corpus has no document: its sources hold no readable text of at least 32 characters")
    _describe(folder, funnels, licences, lines)


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


def _describe(
    folder: Path, funnels: dict[str, Funnel], licences: dict[str, Counter[tuple[str, str]]], lines: list[str]
) -> None:
    domains = {
        name: {
            **vars(funnel),
            "sources": [
                {"source": source, "licence": licence, "docs": docs}
                for (source, licence), docs in sorted(licences.get(name, {}).items())
            ],
        }
        for name, funnel in sorted(funnels.items())
    }
    hashed = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    write_atomic(folder / "corpus.json", json.dumps({"hash": hashed, "domains": domains}, indent=1, ensure_ascii=False))


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
