"""`Decontamination`: the step of the funnel that removes documents which hold test items, and the search that it does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lablib.data import cache
from lablib.data.contamination import grams, registry
from lablib.data.contamination.detector import Detector, Match
from lablib.data.contamination.index import Index, build
from lablib.data.contamination.items import BenchmarkItem, digest_of, of_file, of_task
from lablib.data.contamination.report import Coverage, Report, Row
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, silent
from lablib.data.documents import Report as Progress
from lablib.specs import LabError, Task, digest
from lablib.specs.contamination import Decontaminate

VERSION = 3
"""Raised when the same settings and indexes would decide otherwise."""
AROUND = 160
"""Characters of context on each side of a match."""
LONGEST_MATCH = 1200
"""Characters of a match that are shown."""


@dataclass(frozen=True)
class Library:
    """The indexes of the benchmarks that are present, and what is known about all that were asked for."""

    indexes: list[Index]
    coverage: list[Coverage]

    @classmethod
    def of(cls, spec: Decontaminate, may_fetch: bool = False) -> Library:
        """Find, read and index the benchmarks of `spec`. Raises `LabError` for a file that is wrong; a known benchmark
        that this machine cannot have is listed as missing."""
        indexes, coverage = [], []
        for benchmark in spec.benchmarks:
            index, found = _one(benchmark, spec.method, may_fetch)
            coverage.append(found)
            if index is not None:
                indexes.append(index)
        names = [one.name for one in coverage]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise LabError(f"benchmarks: two of them have the name {', '.join(twice)}; rename one's file or task")
        return cls(indexes, coverage)


def _one(benchmark: str | Task, method: str, may_fetch: bool) -> tuple[Index | None, Coverage]:
    if isinstance(benchmark, Task):
        index, source = indexed(benchmark.name, of_task(benchmark), method), f"reasoning-gym {benchmark.generator}"
    elif benchmark.endswith(".index"):
        index, source = Index.load(Path(benchmark)), benchmark
        if index.method != method:
            raise LabError(f"{benchmark} is an index for method={index.method!r}, not {method!r}; set method to it, or index the items again")  # fmt: skip
    elif benchmark.endswith(".jsonl"):
        index, source = indexed(Path(benchmark).stem, of_file(Path(benchmark)), method), benchmark
    else:
        found = registry.presence(benchmark, may_fetch)
        if not found.present:
            return None, Coverage(benchmark, found.reason)
        index, source = indexed(benchmark, registry.load(found), method), found.source
    return index, Coverage(index.name, "", source, len(index.ids), index.items_sha256, index.sha256, index.uncovered)


def indexed(name: str, items: list[BenchmarkItem], method: str) -> Index:
    """The index of these items, made once and then read from the cache."""
    key = digest([VERSION, name, digest_of(items), method, grams.fingerprint()])
    folder = cache.made("indexes", key, lambda to: _write(build(name, items, method), to))
    return Index.load(folder / f"{name}.index")


def _write(index: Index, folder: Path) -> None:
    (folder / f"{index.name}.index").write_bytes(index.to_bytes())


def search(documents: Iterable[Document], library: Library, spec: Decontaminate, report: Progress = silent, total: float = 0) -> Report:  # fmt: skip
    """Look for the library's items in documents, a batch at a time; kept are only the rows of what was found."""
    detector, waiting = Detector(library.indexes, spec), deque[Document]()
    counted = {"documents": 0, "bytes": 0}

    def texts() -> Iterator[str]:
        for document in documents:
            waiting.append(document)
            counted["documents"] += 1
            counted["bytes"] += len(document.text.encode())
            report(counted["bytes"], total)
            yield document.text

    rows, found = [], dict.fromkeys((one.name for one in library.coverage), 0)
    for matches in detector.search(texts()):
        document = waiting.popleft()
        rows += [_row(document, match, spec.method) for match in matches]
        for name in {match.benchmark for match in matches}:
            found[name] += 1
    coverage = [replace(one, documents=found[one.name]) for one in library.coverage]
    return Report(spec.method, counted["documents"], counted["bytes"], coverage, rows)


def _row(document: Document, match: Match, method: str) -> Row:
    text = document.text
    begin, end = grams.place(text, match.begin, match.end, method)
    shown = text[begin : min(end, begin + LONGEST_MATCH)] + ("…" if end - begin > LONGEST_MATCH else "")
    context = f"{text[max(begin - AROUND, 0) : begin]}»{shown}«{text[end : end + AROUND]}"
    return Row(match.benchmark, match.item, match.score, document.domain, document.source, document.sha256, context)


@dataclass(frozen=True)
class Decontamination:
    """Documents that hold an item of a benchmark go. Which benchmarks were missing stands in the `report`."""

    spec: Decontaminate = field(default_factory=Decontaminate)
    may_fetch: bool = False
    """Whether pinned packages of benchmarks may be downloaded."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "decontamination"

    @cached_property
    def shelf(self) -> Library:
        """The indexes, found when they are first asked for."""
        return Library.of(self.spec, self.may_fetch)

    def key(self) -> str:
        """Covers the settings, every index's bytes, and which benchmarks were missing."""
        settings = self.spec.model_dump(mode="json", exclude={"benchmarks"})
        return digest([VERSION, settings, [[one.name, one.index_sha256] for one in self.shelf.coverage]])

    def decide(self, before: Corpus, report: Progress = silent) -> Mapping[str, str]:
        """SHA-256 of each document that goes, with the benchmark and the id of the item that it holds."""
        return self.report(before, report).reasons()

    def report(self, before: Corpus, report: Progress = silent) -> Report:
        """What was found in a corpus and is removed by this step; searched once, then read from the cache."""
        key = digest([before.identity, self.key()])
        return Report.load(cache.made("decontamination", key, lambda to: self._search(before, report).save(to)))

    def _search(self, before: Corpus, report: Progress) -> Report:
        total = sum(before.bytes(domain) for domain in before.domains)
        documents = (document for domain in before.domains for document in before.documents(domain))
        return replace(search(documents, self.shelf, self.spec, report, total), removed=True)
