"""`Joining`: documents of one book or one repository become one long document, whatever the corpus' cut into parts.

What belongs together stands in a row, as files do that were read in order of their names. A part of a corpus makes the long
documents that begin in it, of documents of the parts behind it too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby
from pathlib import Path

from lablib.data import corpus
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.data.funnel import Count
from lablib.data.samples import Samples
from lablib.data.samples import dropped as shown
from lablib.specs import digest
from lablib.specs.refining import Join

VERSION = 2
"""Raised when the same documents would be joined otherwise."""
BETWEEN = "\n\n"
JOINED, SHORT = "joined to the one before", "shorter than min_bytes"
Group = list[Document]


@dataclass(frozen=True)
class Joining:
    """The funnel's step that joins."""

    spec: Join

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "long documents"

    def key(self) -> str:
        """Of all settings."""
        return digest([VERSION, self.spec.model_dump(mode="json")])

    def apply(self, parts: Sequence[Corpus], number: int, folder: Path, report: Report = silent) -> None:
        """Write into `folder` what part `number` of a corpus becomes."""
        counts: defaultdict[str, Count] = defaultdict(Count)
        samples, writer, before = Samples(), corpus.Writer(folder), parts[number]
        with writer:
            for at, domain in enumerate(before.domains):
                for group in self._groups(parts, number, domain):
                    report(at, len(before.domains))
                    made = together(group, self.unit(group[0]))
                    size = len(made.text.encode())
                    short = domain in self.spec.domains and size < (self.spec.min_bytes or 0)
                    _count(counts[domain], group, 0 if short else size)
                    if short:
                        samples.add(made.sha256, SHORT, shown(made, f"{SHORT} [{size:,} bytes]"))
                    else:
                        writer.add(made)
        domains = {name: asdict(one) for name, one in sorted(counts.items())}
        writer.describe(before.facts["domains"], [*before.funnel, {"step": self.name, "key": self.key(), "domains": domains}])  # fmt: skip
        samples.save(folder / "dropped.jsonl")

    def _groups(self, parts: Sequence[Corpus], number: int, domain: str) -> Iterator[Group]:
        """The documents of a part that each new one is made of; those whose long document begins in an earlier part are its."""
        own = parts[number].documents(domain)
        if domain not in self.spec.domains:
            yield from ([one] for one in own)
            return
        behind = (one for part in parts[number + 1 :] for one in part.documents(domain))
        size, theirs = len(parts[number].index(domain)), self._last(parts[:number], domain)
        runs = groupby(enumerate(chain(own, behind)), lambda one: self.unit(one[1]) or one[0])
        for name, run in runs:
            place, first = next(run)
            if place >= size:
                return
            if place > 0 or name != theirs:
                yield from self._cut(chain([first], (document for _, document in run)))

    def _cut(self, documents: Iterable[Document]) -> Iterator[Group]:
        """What belongs together, in groups of at most `max_bytes` or a single document."""
        group, held = Group(), 0
        for document in documents:
            length = len(document.text.encode())
            if group and held + len(BETWEEN) + length > self.spec.max_bytes:
                yield group
                group, held = [], 0
            held += length + len(BETWEEN) * bool(group)
            group.append(document)
        yield group

    def unit(self, document: Document) -> str:
        """What a document belongs to: the first parts of its source; empty where it has no more, and stands alone."""
        parts = document.source.split("/")
        return "/".join(parts[: self.spec.folders]) if len(parts) > self.spec.folders else ""

    def _last(self, earlier: Sequence[Corpus], domain: str) -> str:
        """What the document before the part's first belongs to; empty where there is none."""
        for part in reversed(earlier):
            if count := len(part.index(domain)):
                (last,) = part.documents(domain, [False] * (count - 1) + [True])
                return self.unit(last)
        return ""


def together(group: Group, name: str) -> Document:
    """One document of several; of one it is itself. A licence for each that they have; what only some state is left out."""
    if len(group) == 1:
        return group[0]
    texts = [one.text.strip("\n") for one in group]
    length = sum(map(len, texts))
    licences = {
        f"({one.licence})" if " OR " in one.licence else one.licence for one in group
    }  # AND binds closer (SPDX)
    stated = {field: values.pop() if len(values) == 1 else "" for field in ("label", "url", "time") if (values := {getattr(one, field) for one in group})}  # fmt: skip
    return replace(
        group[0],
        source=name,
        licence=" AND ".join(sorted(licences)) if len(licences) > 1 else group[0].licence,
        text=BETWEEN.join(texts) + "\n",
        synthetic=sum(one.synthetic * len(text) for one, text in zip(group, texts, strict=True)) / max(1, length),
        generation=max(one.generation for one in group),
        **stated,
    )


def _count(count: Count, group: Group, size: int) -> None:
    """Of a group that became a document of `size` bytes, or none."""
    reasons = {JOINED: len(group) - 1} if size else {SHORT: len(group)}
    taken = sum(len(one.text.encode()) for one in group)
    count.plus(asdict(Count(len(group), int(size > 0), taken, size, reasons)))
