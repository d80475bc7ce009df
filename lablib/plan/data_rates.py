"""How fast a core prepares text, by step: measured constants that plans of data preparation rest on."""

from __future__ import annotations

from dataclasses import dataclass

from lablib.plan.ranges import Range

MEASURED = "python -m bench.data.scale --megabytes 12 24, 2026-11-26 (docs/data.md, At scale)"
READING = "python -m bench.data.sources --mb 3, 2026-11-26, load 16, pages of little markup (docs/data.md, Measured)"
EDITING = "python -m bench.data.editing --mb 3, 2026-11-26, load 8 (docs/data.md, Measured)"

TESTING = "python -m bench.data.testing, 2026-11-27 (docs/data.md, Measured)"


@dataclass(frozen=True)
class Rate:
    """One step's speed."""

    mb_per_second: float
    """Megabytes of text a CPU-second."""
    source: str = MEASURED


RATES = {
    "read": Rate(20.5),
    "quality": Rate(2.3),
    "near-duplicates": Rate(12.2),
    "decontamination": Rate(12.1),
    "tokenise": Rate(4.8),
}
"""The usual steps; `read` decodes JSON lines and drops exact duplicates."""
EXTRAS = {
    "html": Rate(25.0, READING),
    "profanity": Rate(25.0, EDITING),
    "repeated-lines": Rate(3.5, EDITING),
    "repeated-sentences": Rate(4.5, EDITING),
    "repeated-spans": Rate(4.7, EDITING),
    "repeated-passages": Rate(4.0, EDITING),
    "personal-data": Rate(8.5, EDITING),
    "own-tests": Rate(0.025, TESTING),
    "long-documents": Rate(40.0, TESTING),
}
"""Steps that are taken where they are asked for: `html` is reading WARC and extracting its pages' main content, counted in
the bytes of the pages, which were little more than those of the text; `profanity` the column of `Clean.max_profanity`; `repeated-…` a unit of `Repeats`; `personal-data`
`Scrub`; `own-tests` and `long-documents` `Verify` and `Join`: a document
with tests takes .16 CPU-seconds however short it is, which is the rate at 4 kB each; one without any takes none."""
ALL = RATES | EXTRAS
ORDER = (
    *("html", "read", "quality", "profanity", "near-duplicates"),
    *(name for name in EXTRAS if name.startswith("repeated-")),
    *("decontamination", "personal-data", "own-tests", "long-documents", "tokenise"),
)
"""All steps in the order in which they are taken."""
PAGES = Range(low=0.026, mid=0.037, high=0.057)
"""Bytes of main text over those of the web pages that it stands in: 5.2 kB a document (DCLM's pool, extracted with resiliparse:
200 billion documents, 240 T tokens of 4.3 bytes; arXiv 2406.11794 §3.1) over a page of Common Crawl, 197 kB in October 2025 (468
TiB, 2.61 billion pages), 140 in February 2023 (400 TiB, 3.15 billion) and 90 in October 2017 (300 TiB, 3.65 billion), by its
announcements."""
