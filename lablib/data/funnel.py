"""The funnel: steps that each look at a whole corpus and say which documents go, and why.

Every step makes a new corpus in a folder of its own, named by what went into it: whole or absent, so that counts stay
right whatever was killed and begun again. ``corpus.json`` carries the counts of all steps so far, and
``dropped.jsonl`` samples of what this one dropped.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lablib.data import cache, corpus
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.specs import digest

SAMPLES = 20
"""Dropped documents that are kept for each reason, those of the smallest hashes: the same ones every time."""
EXCERPT = 2000
"""Characters of each that are kept."""


class Step(Protocol):
    """Something that decides about documents."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""

    def key(self) -> str:
        """Changes exactly when the step may decide differently about the same corpus."""

    def decide(self, before: Corpus, report: Report = silent) -> Mapping[str, str]:
        """SHA-256 of each document that goes, with the reason in a few words; what stands in brackets at its end is of that
        document alone, and is not counted apart."""


@dataclass
class Count:
    """What went into a step and came out, of one domain or of all."""

    docs_in: int = 0
    docs_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Documents dropped, by reason."""

    @property
    def why(self) -> str:
        """The reasons with their documents, the most frequent one first."""
        ranked = sorted(self.reasons.items(), key=lambda one: -one[1])
        return ", ".join(f"{reason} {docs:,}" for reason, docs in ranked)

    def add(self, size: int, reason: str) -> None:
        """One document of `size` bytes; an empty reason keeps it."""
        self.docs_in, self.bytes_in = self.docs_in + 1, self.bytes_in + size
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        else:
            self.docs_out, self.bytes_out = self.docs_out + 1, self.bytes_out + size


def totals(row: dict[str, Any]) -> Count:
    """What a step of ``corpus.json``'s funnel counted over all domains."""
    whole = Count()
    for one in row["domains"].values():
        whole.docs_in, whole.docs_out = whole.docs_in + one["docs_in"], whole.docs_out + one["docs_out"]
        whole.bytes_in, whole.bytes_out = whole.bytes_in + one["bytes_in"], whole.bytes_out + one["bytes_out"]
        for reason, docs in one["reasons"].items():
            whole.reasons[reason] = whole.reasons.get(reason, 0) + docs
    return whole


def refine(before: Corpus, steps: Sequence[Step], report: Report = silent) -> Corpus:
    """The corpus that is left after all steps, each cached by the corpus and the step."""
    for step in steps:
        before = _refined(before, step, report)
    return before


def _refined(before: Corpus, step: Step, report: Report) -> Corpus:
    """One step's product, made unless it is there."""
    name = digest([corpus.VERSION, before.hash, step.name, step.key()])
    return Corpus(cache.made("corpora", name, lambda to: apply(before, step, to, report)))


def apply(before: Corpus, step: Step, folder: Path, report: Report = silent) -> None:
    """Write what is left of `before` after one step into `folder`. An empty result is a corpus too: whoever needs
    documents says so."""
    gone = step.decide(before, report)
    counts: defaultdict[str, Count] = defaultdict(Count)
    samples = _Samples()
    writer = corpus.Writer(folder)
    with writer:
        for domain in before.domains:
            for document in before.documents(domain):
                reason = gone.get(document.sha256, "")
                kind = reason.partition(" [")[0]
                counts[domain].add(len(document.text.encode()), kind)
                if reason:
                    samples.add(document, kind, reason)
                else:
                    writer.add(document)
    row = {"step": step.name, "key": step.key(), "domains": {name: asdict(one) for name, one in sorted(counts.items())}}
    writer.describe(before.facts["domains"], [*before.funnel, row])
    samples.save(folder / "dropped.jsonl")


class _Samples:
    """The documents of the smallest hashes for each reason."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self._seen: Counter[str] = Counter()

    def add(self, document: Document, kind: str, reason: str) -> None:
        rank = -int(document.sha256[:15], 16)
        row = {"reason": reason, "domain": document.domain, "source": document.source, "sha256": document.sha256,
               "text": document.text[:EXCERPT]}  # fmt: skip
        held = self._kept[kind]
        self._seen[kind] += 1
        entry = (rank, self._seen[kind], row)
        if len(held) < SAMPLES:
            heapq.heappush(held, entry)  # type: ignore[misc]
        else:
            heapq.heappushpop(held, entry)  # type: ignore[misc]

    def save(self, path: Path) -> None:
        rows = [entry[-1] for held in self._kept.values() for entry in held]
        rows.sort(key=lambda row: (row["reason"], row["sha256"]))
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
