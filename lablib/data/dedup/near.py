"""`NearDuplicates`: the step of the funnel that removes near-duplicates."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lablib.data import cache
from lablib.data.corpus import Corpus
from lablib.data.dedup import sketches, survivors
from lablib.data.documents import Document, Report, silent
from lablib.specs import LabError, digest
from lablib.specs.dedup import Dedup

VERSION = 1
"""Raised when the same settings would decide otherwise."""
DEFAULT = Dedup()


@dataclass(frozen=True)
class NearDuplicates:
    """MinHash proposes, exact Jaccard decides; a document goes only for one that stays.

    The same verdicts come of any order of documents, any sharding and any number of workers. Needs 8 bytes a word and 8
    a band on the disk of the lab's cache while it runs, and in memory about 100 bytes a document, 16 for each band in
    which a document meets another, and 50 MB a worker for text under way.
    """

    spec: Dedup = DEFAULT
    workers: int = 1
    """Processes that make signatures; the result does not depend on it."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "near-duplicates"

    def key(self) -> str:
        """Covers the settings as used, the hash functions, and Unicode's tables."""
        settings = self.spec.model_dump(mode="json") | dict(zip(("bands", "rows"), self.spec.banding, strict=True))
        algorithm = sketches.rensa().RMinHash.ALGORITHM_VERSION
        return digest([VERSION, settings, algorithm, sketches.SEED, unicodedata.unidata_version])

    def check(self, before: Corpus) -> None:
        """Raises `LabError` where ``prefer`` names a domain that a corpus does not have."""
        if unknown := sorted(set(self.spec.prefer) - set(before.facts["domains"])):
            has = ", ".join(sorted(before.facts["domains"]))
            raise LabError(f"prefer: the corpus has no domain {', '.join(unknown)}; its domains are {has}")

    def decide(self, before: Corpus, report: Report = silent) -> Mapping[str, str]:
        """SHA-256 of each document that goes, with the reason. Raises `LabError` for a domain that is not there."""
        self.check(before)
        total = sum(before.bytes(domain) for domain in before.domains)
        documents = (document for domain in before.domains for document in before.documents(domain))
        return near_duplicates(documents, self.spec, self.workers, lambda done: report(done, total))


def near_duplicates(
    documents: Iterable[Document], spec: Dedup = DEFAULT, workers: int = 1, report: sketches.Progress = sketches.unheard
) -> dict[str, str]:
    """SHA-256 of each document that goes, with the reason; each text is expected once (a corpus holds it once)."""
    if workers < 1:
        raise LabError(f"workers={workers}: give at least one process")
    with cache.scratch() as folder:
        known = sketches.collect(documents, spec, folder, workers, report)
        return survivors.verdicts(known, survivors.fallen(known, spec))
