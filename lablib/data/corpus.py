"""A corpus: sources read once, exact duplicates dropped, counts kept, stored by domain in a content-addressed folder.

Each domain is one file of JSON lines; ``corpus.json`` holds the counts, the sources' licences and the corpus' hash,
which covers every document's text and domain and nothing of when or where it was built. A large corpus is kept in parts
(``part-00000``, …), each of which is a corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import compress, repeat
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from lablib.data.documents import PROVENANCE, Document, Readable, Report, Source, Unreadable, silent
from lablib.data.samples import EXCERPT, Samples, dropped
from lablib.specs import LabError, digest, write_atomic

VERSION = 1
"""Raised when the same sources would give other documents, so that old caches are left alone."""
RESERVED = ("dropped", "changed")
"""Names of the files of samples beside those of the domains."""
SHORTEST = 32
"""Characters; shorter documents teach nothing and are counted as dropped."""

INDEX = np.dtype([("sha256", "u1", 32), ("bytes", "<i8")])
"""A document in a domain's ``.index`` file."""
Index = NDArray[Any]
NOTHING = "The corpus has no document: its sources hold no readable text of at least 32 characters"
SHOWN = 3
"""Things that an error about a wholly unreadable source names."""


@dataclass
class Funnel:
    """What happened to one domain's documents."""

    docs: int = 0
    bytes: int = 0
    """Of UTF-8 text that was kept."""
    duplicates: int = 0
    short: int = 0
    aside: Counter[str] = field(default_factory=Counter)
    """What could not be read, by reason."""

    @property
    def counts(self) -> dict[str, Any]:
        """What ``corpus.json`` says; nothing of what was set aside where nothing was."""
        return {name: value for name, value in vars(self).items() if name != "aside" or value}


def key(sources: Sequence[Source], limit: int | None = None) -> str:
    """Name of the folder that the corpus belongs in; call after the sources are fetched."""
    return digest([VERSION, limit, *(source.fingerprint() for source in sources)])


def build(sources: Sequence[Readable], folder: Path, report: Report = silent, part: bool = False) -> None:
    """Read all sources into `folder`. Where two documents are equal, the first in order of sources stays.

    What could not be read is counted by domain and reason, with samples in ``dropped.jsonl``. Raises `LabError` where a
    source has nothing that can be read, or no document is left, unless it is only a `part` of a corpus.
    """
    funnels: dict[str, Funnel] = {}
    total = 0
    writer, samples = Writer(folder), Samples()
    with writer:
        for document in _kept(sources, funnels, samples, part):
            writer.add(document)
            total += len(document.text)
            report(total, 0)
    if not total and not part:
        raise LabError(NOTHING)
    writer.describe({name: funnel.counts for name, funnel in funnels.items()})
    if samples:
        samples.save(folder / "dropped.jsonl")


class Writer(AbstractContextManager["Writer"]):
    """Writes a corpus document by document, and at its end says what is in it."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists and is empty."""
        self.folder = folder
        self._files: dict[str, TextIO] = {}
        self._licences: dict[str, Counter[tuple[str, str]]] = {}
        self._sizes: dict[str, list[int]] = {}
        self._hashes: dict[str, bytearray] = {}
        self._lengths: dict[str, array[int]] = {}
        self._provenance: dict[str, Counter[str]] = {}
        self._rows = 0

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
        self._hashes.setdefault(name, bytearray()).extend(bytes.fromhex(digested))
        self._note(document, digested)
        self._licences.setdefault(name, Counter())[origin(document.source), document.licence] += 1
        docs, size = self._sizes.get(name, [0, 0])
        length = len(document.text.encode())
        self._lengths.setdefault(name, array("q")).append(length)
        self._sizes[name] = [docs + 1, size + length]

    def _note(self, document: Document, sha256: str) -> None:
        """Count which provenance is known, and add the row to a sum that does not depend on the order."""
        known = document.provenance
        told = self._provenance.setdefault(document.domain, Counter())
        told.update({name: 1 for name in known if name != "generation"})
        told["generation"] = max(told["generation"], document.generation)
        row = [sha256, document.domain, document.source, document.licence, document.label, known]
        self._rows += int.from_bytes(hashlib.sha256(json.dumps(row).encode()).digest())

    def describe(self, read: Mapping[str, dict[str, Any]], funnel: Sequence[dict[str, Any]] = ()) -> None:
        """Write ``corpus.json``: the hash, each domain's counts and licences, beside what was counted when it was `read`,
        and the rows of the funnel's steps so far."""
        domains = {name: self._domain(name, counted) for name, counted in sorted(read.items())}
        for name, hashes in self._hashes.items():
            _index(hashes, self._lengths[name]).tofile(self.folder / f"{name}.index")
        rows = f"{self._rows % 2**256:064x}"
        facts = {
            "hash": hash_of(self._hashes),
            "rows": rows,
            "domains": domains,
            **({"funnel": list(funnel)} if funnel else {}),
        }
        write_atomic(self.folder / "corpus.json", json.dumps(facts, indent=1, ensure_ascii=False))

    def _domain(self, name: str, counted: dict[str, Any]) -> dict[str, Any]:
        docs, size = self._sizes.get(name, [0, 0])
        sources = [
            {"source": source, "licence": licence, "docs": number}
            for (source, licence), number in sorted(self._licences.get(name, {}).items())
        ]
        known = {key: value for key, value in self._provenance.get(name, Counter()).items() if value}
        before = {key: value for key, value in counted.items() if key != "provenance"}
        made = {**before, "docs": docs, "bytes": size, "sources": sources}
        return {**made, "provenance": known} if known else made


def hash_of(hashes: Mapping[str, bytes | bytearray]) -> str:
    """SHA-256 of the sorted lines ``domain sha256``; `hashes` are 32 bytes a document, and so much more is held meanwhile."""
    hashed, begun = hashlib.sha256(), False
    for name in sorted(hashes, key=lambda one: one + " "):
        ordered = np.sort(np.frombuffer(hashes[name], dtype="S32")).tobytes()
        for at in range(0, len(ordered), 32):
            hashed.update(f"{chr(10) * begun}{name} {ordered[at : at + 32].hex()}".encode())
            begun = True
    return hashed.hexdigest()


def _index(hashes: bytearray, lengths: array[int]) -> Index:
    made = np.zeros(len(lengths), INDEX)
    made["sha256"] = np.frombuffer(hashes, np.uint8).reshape(-1, 32)
    made["bytes"] = np.array(lengths, np.int64)
    return made


def _kept(sources: Sequence[Readable], funnels: dict[str, Funnel], samples: Samples, part: bool) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in (document for source in sources for document in _readable(source, funnels, samples, part)):
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


def _readable(source: Readable, funnels: dict[str, Funnel], samples: Samples, part: bool) -> Iterator[Document]:
    """A source's documents; what it could not read is counted. Raises `LabError` where it could read nothing."""
    aside: list[Unreadable] = []
    read = False
    for found in map(_storable, source.documents()):
        if isinstance(found, Document):
            read = True
            yield found
            continue
        funnels.setdefault(found.domain, Funnel()).aside[found.kind] += 1
        sample = Document(found.domain, found.source, "", found.text[:EXCERPT])
        samples.add(sample.sha256, found.kind, dropped(sample, found.reason))
        if len(aside) < SHOWN:
            aside.append(found)
    if aside and not read and not part:
        why = "; ".join(f"{one.source}: {one.reason}" for one in aside)
        raise unreadable(str(source), why)


def _storable(found: Document | Unreadable) -> Document | Unreadable:
    """The same with "?" for what UTF-8 cannot hold: half of a pair in a row of JSON, a byte of a file's name."""
    texts = {name: value for name, value in vars(found).items() if isinstance(value, str) and not value.isascii()}
    stored: dict[str, Any] = {name: value.encode("utf-8", "replace").decode() for name, value in texts.items()}
    return found if stored == texts else replace(found, **stored)


def unreadable(where: str, why: str) -> LabError:
    """What is said where sources hold nothing that can be read: `where` names them, `why` their files and rows."""
    forms = "UTF-8 text, JSON lines or Parquet with a text column, WARC or WET"
    return LabError(f"corpus {where}: nothing in it can be read ({why}); give {forms}")


def origin(source: str) -> str:
    """What a document's source names without the row or file inside it: a package, a file of rows, the top folder, a data
    set of the hub, or the host of a web address."""
    if source.startswith(("http://", "https://")):
        return "/".join(source.split("/")[:3])
    kept = 2 if source.startswith("hf:") else 1
    return "/".join(re.sub(r"#\d+$", "", source).split("/")[:kept])


def _row(document: Document, sha256: str) -> str:
    row = {"source": document.source, "licence": document.licence, "sha256": sha256, "text": document.text}
    label = {"label": document.label} if document.label else {}
    return json.dumps({**row, **label, **document.provenance}, ensure_ascii=False) + "\n"


def check_domain(name: str) -> str:
    """A domain's name becomes a file's name. Raises `LabError` for one that cannot."""
    if name in RESERVED:
        raise LabError(f"domain={name!r}: files of a corpus have this name; call it {slug(name)!r}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise LabError(f"domain={name!r}: use 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    return name


def slug(text: str) -> str:
    """A domain name made of any text, such as a folder's name."""
    made = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "text"
    return f"{made}-text" if made in RESERVED else made


@dataclass(frozen=True)
class Corpus:
    """A built corpus on disk."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What ``corpus.json`` says: the hash, and per domain docs, bytes, duplicates, short, sources; where there was any,
        what was set ``aside`` by reason, and the documents whose ``provenance`` says more than source and licence."""
        found: dict[str, Any] = json.loads((self.folder / "corpus.json").read_text(encoding="utf-8"))
        return found

    @property
    def hash(self) -> str:
        """64 hex digits over all (domain, text), whatever their order."""
        return str(self.facts["hash"])

    @property
    def identity(self) -> str:
        """Changes with a text, a domain or any document's provenance, whatever their order: what a product is cached by."""
        facts = self.facts
        return str(facts.get("rows", facts["hash"]))

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

    @property
    def parts(self) -> list[Corpus]:
        """The corpora that it is kept in, in the order of reading; a small one is its own only part."""
        return [Corpus(part) for part in sorted(self.folder.glob("part-*/"))] or [self]

    def documents(self, domain: str, wanted: Sequence[bool] | None = None) -> Iterator[Document]:
        """A domain's documents in the order in which they were read; of those that are not `wanted` the text is not decoded."""
        flags = repeat(True) if wanted is None else iter(wanted)
        for file in self._files(domain, "jsonl"):
            with file.open(encoding="utf-8") as rows:
                for row in map(json.loads, compress(rows, flags)):
                    known = {name: row[name] for name in PROVENANCE if name in row}
                    yield Document(domain, row["source"], row["licence"], row["text"], row.get("label", ""), **known)

    def index(self, domain: str) -> Index:
        """(documents,): SHA-256 and UTF-8 bytes of each, in the order of `documents`; 40 bytes each."""
        found = [np.fromfile(file, INDEX) for file in self._files(domain, "index")]
        if found or not self._files(domain, "jsonl"):
            return np.concatenate([np.zeros(0, INDEX), *found])
        hashes, lengths = bytearray(), array("q")
        for document in self.documents(domain):  # written before there were indexes
            hashes += bytes.fromhex(document.sha256)
            lengths.append(len(document.text.encode()))
        return _index(hashes, lengths)

    def _files(self, domain: str, ending: str) -> list[Path]:
        files = (part.folder / f"{domain}.{ending}" for part in self.parts)
        return [file for file in files if file.is_file()]
