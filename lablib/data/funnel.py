"""The funnel: steps that each look at a whole corpus and say which documents go, and why, or what changes in them.

Every step makes a new corpus in a folder of its own, named by what went into it: whole or absent, so that counts stay
right whatever was killed and begun again. ``corpus.json`` carries the counts of all steps so far, ``dropped.jsonl``
samples of what this one dropped, and ``changed.jsonl`` samples of what it changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from lablib.data import cache, corpus, editing
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.data.editing import Edit, Edited, Plan
from lablib.data.samples import Samples
from lablib.data.samples import dropped as shown
from lablib.specs import digest


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
    docs_changed: int = 0
    """Documents that stayed with another text."""
    bytes_cut: int = 0
    """UTF-8 bytes taken out of them, less what was put in."""
    chars_cut: int = 0
    edits: dict[str, int] = field(default_factory=dict)
    """What was taken out of them or replaced, by kind."""

    @property
    def why(self) -> str:
        """The reasons with their documents, the most frequent one first, then what was done to those that stayed."""
        told = [f"{reason} {docs:,}" for reason, docs in _ranked(self.reasons)]
        if self.docs_changed:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in _ranked(self.edits))
            told.append(f"{self.docs_changed:,} changed ({kinds}; {self.bytes_cut:,} bytes less)")
        return ", ".join(told)

    def add(self, document: Document, reason: str, made: Edited | None = None) -> None:
        """One document; an empty reason keeps it, with the text that was `made` of it."""
        size = len(document.text.encode())
        self.docs_in, self.bytes_in = self.docs_in + 1, self.bytes_in + size
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            return
        left = size if made is None else len(made.text.encode())
        self.docs_out, self.bytes_out = self.docs_out + 1, self.bytes_out + left
        if made is not None:
            self.docs_changed, self.bytes_cut = self.docs_changed + 1, self.bytes_cut + size - left
            self.chars_cut += len(document.text) - len(made.text)
            self._merge({"edits": made.found})

    def plus(self, other: Mapping[str, Any]) -> None:
        """Add what another one counted, given as ``asdict`` has it; one that was written before edits has none."""
        for name in (one.name for one in fields(self)):
            if isinstance(value := other.get(name, 0), int):
                setattr(self, name, getattr(self, name) + value)
        self._merge(other)

    def _merge(self, other: Mapping[str, Any]) -> None:
        for name in ("reasons", "edits"):
            mine: dict[str, int] = getattr(self, name)
            for kind, number in other.get(name, {}).items():
                if number:
                    mine[kind] = mine.get(kind, 0) + number


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: -one[1])


def totals(row: dict[str, Any]) -> Count:
    """What a step of ``corpus.json``'s funnel counted over all domains."""
    whole = Count()
    for one in row["domains"].values():
        whole.plus(one)
    return whole


def refine(before: Corpus, steps: Sequence[Step | Edit], report: Report = silent) -> Corpus:
    """The corpus that is left after all steps, each cached by the corpus and the step."""
    for step in steps:
        before = _refined(before, step, report)
    return before


def _refined(before: Corpus, step: Step | Edit, report: Report) -> Corpus:
    """One step's product, made unless it is there."""
    name = digest([corpus.VERSION, before.identity, step.name, step.key()])
    return Corpus(cache.made("corpora", name, lambda to: apply(before, step, to, report)))


def apply(before: Corpus, step: Step | Edit, folder: Path, report: Report = silent) -> None:
    """Write what is left of `before` after one step into `folder`. An empty result is a corpus too: whoever needs
    documents says so."""
    carry_out(look(before, step, report), before, step, folder, report)


def look(before: Corpus, step: Step | Edit, report: Report = silent) -> Plan:
    """What a step does to a corpus."""
    if isinstance(step, Edit):
        return editing.plan(before, step, report)
    return Plan(_same, frozenset(), step.decide(before, report))


def _same(document: Document) -> Edited:
    return Edited(document.text)


def carry_out(plan: Plan, before: Corpus, step: Step | Edit, folder: Path, report: Report = silent) -> None:
    """Write what is left of a corpus, or of a part of the one that the plan was made for."""
    counts: defaultdict[str, Count] = defaultdict(Count)
    dropped, changed = Samples(), Samples()
    writer = corpus.Writer(folder)
    with writer:
        for document in editing.every(before, report):
            name = document.sha256
            reason = plan.gone.get(name, "")
            kind = reason.partition(" [")[0]
            made = plan.edit(document) if name in plan.changed and not reason else None
            counts[document.domain].add(document, kind, made)
            if reason:
                dropped.add(name, kind, shown(document, reason))
                continue
            if made is not None:
                changed.add(name, "", editing.sample(document, made))
            writer.add(document if made is None else replace(document, text=made.text))
    row = {"step": step.name, "key": step.key(), "domains": {name: asdict(one) for name, one in sorted(counts.items())}}
    writer.describe(before.facts["domains"], [*before.funnel, row])
    dropped.save(folder / "dropped.jsonl")
    if isinstance(step, Edit):
        changed.save(folder / "changed.jsonl")
