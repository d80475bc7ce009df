"""How fast a core prepares text, by step: measured constants that plans of data preparation rest on."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = "python -m bench.data.scale --megabytes 12 24, 2026-11-26 (docs/data.md, At scale)"
READING = "python -m bench.data.sources --mb 3, 2026-11-26, load 16, pages of little markup (docs/data.md, Measured)"
EDITING = "python -m bench.data.editing --mb 3, 2026-11-26, load 8 (docs/data.md, Measured)"


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
}
"""Steps that are taken where they are asked for: `html` is reading WARC and extracting its pages' main content, counted in
the text that comes out; `profanity` the column of `Clean.max_profanity`; `repeated-…` a unit of `Repeats`; `personal-data`
`Scrub`."""
ALL = RATES | EXTRAS
ORDER = (
    *("html", "read", "quality", "profanity", "near-duplicates"),
    *(name for name in EXTRAS if name.startswith("repeated-")),
    *("decontamination", "personal-data", "tokenise"),
)
"""All steps in the order in which they are taken."""
