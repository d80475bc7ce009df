"""`Report`: what a search found, for whom it may be called clean, and rows that a person can check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lablib.specs import LabError, write_atomic

PARAPHRASE = "Paraphrases are not covered: a question that was said again in other words, or translated, is not found."
"""Part of every report: no method on n-grams finds them."""


@dataclass(frozen=True)
class Coverage:
    """One benchmark in a report."""

    name: str
    reason: str = ""
    """Why it is missing; empty where it was searched for."""
    source: str = ""
    items: int = 0
    items_sha256: str = ""
    index_sha256: str = ""
    uncovered: dict[str, str] = field(default_factory=dict)
    """Ids of items that cannot be found, with the reason."""
    documents: int = 0
    """Documents in which an item was found."""

    @property
    def present(self) -> bool:
        """Whether the index has it."""
        return not self.reason


@dataclass(frozen=True)
class Row:
    """One item found in one document, as shown to a person."""

    benchmark: str
    item: str
    score: float
    domain: str
    source: str
    sha256: str
    """Of the document's text."""
    context: str
    """The document around the match, which stands between »« marks."""

    @property
    def reason(self) -> str:
        """Why the document goes, in a few words."""
        return f"{self.benchmark} [item {self.item}]"


@dataclass(frozen=True)
class Report:
    """The result of searching a corpus."""

    method: str
    documents: int
    bytes: int
    coverage: list[Coverage]
    rows: list[Row]
    removed: bool = False
    """Whether the documents that are listed were taken out."""

    def reasons(self) -> dict[str, str]:
        """SHA-256 of each document with a match, and the item that it is most like."""
        best: dict[str, Row] = {}
        for row in self.rows:
            if row.sha256 not in best or row.score > best[row.sha256].score:
                best[row.sha256] = row
        return {sha256: row.reason for sha256, row in best.items()}

    def clean_for(self, benchmark: str) -> bool:
        """Whether no item of the benchmark was found, or every document that holds one was removed.

        Raises `LabError` for a benchmark that was not searched for: of it nothing can be said.
        """
        found = {one.name: one for one in self.coverage}.get(benchmark)
        if found is None:
            raise LabError(
                f"Nothing can be said about {benchmark!r}: it was not searched for; add it to benchmarks and run again"
            )
        if not found.present:
            raise LabError(
                f"Nothing can be said about {benchmark!r}: its items were missing, so it is not in the index. {found.reason}"
            )
        return self.removed or not found.documents

    def text(self) -> str:
        """A summary in sentences, one a line."""
        lines = [
            f"{self.documents:,} documents ({self.bytes / 1e6:,.1f} MB) were searched by the method {self.method!r}."
        ]
        for one in self.coverage:
            lines.append(_sentence(one, "was removed" if self.removed else "was found"))
        return "\n".join([*lines, PARAPHRASE])

    def save(self, folder: Path) -> None:
        """Write ``report.json`` and ``matches.jsonl``."""
        rows = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows)
        write_atomic(folder / "matches.jsonl", rows)
        facts = {**asdict(self), "text": self.text(), "rows": None}
        write_atomic(folder / "report.json", json.dumps(facts, indent=1, ensure_ascii=False))

    @classmethod
    def joined(cls, parts: Sequence[Report]) -> Report:
        """What searches of the parts of a corpus found together; each was for the same benchmarks."""
        first = parts[0]
        coverage = [
            replace(one, documents=sum(part.coverage[place].documents for part in parts))
            for place, one in enumerate(first.coverage)
        ]
        docs, size = sum(part.documents for part in parts), sum(part.bytes for part in parts)
        rows = [row for part in parts for row in part.rows]
        return replace(first, documents=docs, bytes=size, coverage=coverage, rows=rows)

    @classmethod
    def load(cls, folder: Path) -> Report:
        """Read what `save` wrote."""
        facts: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        with (folder / "matches.jsonl").open(encoding="utf-8") as file:
            rows = [Row(**json.loads(line)) for line in file]
        coverage = [Coverage(**one) for one in facts["coverage"]]
        return cls(facts["method"], facts["documents"], facts["bytes"], coverage, rows, facts["removed"])


def _sentence(one: Coverage, verb: str) -> str:
    if not one.present:
        return f"{one.name}: missing, nothing can be said. {one.reason}"
    blind = (
        f"; {len(one.uncovered):,} of them cannot be found by this method: {_some(one.uncovered)}"
        if one.uncovered
        else ""
    )
    return f"{one.name}: present, {one.items:,} items{blind}; {one.documents:,} documents with an item {verb}."


def _some(ids: Iterable[str], most: int = 5) -> str:
    names = list(ids)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
