"""How fast a core prepares text, by step: measured constants that plans of data preparation rest on."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = "python -m bench.data.scale --megabytes 12, 2026-11-26 (docs/data.md, At scale)"


@dataclass(frozen=True)
class Rate:
    """One step's speed."""

    mb_per_second: float
    """Megabytes of text a CPU-second."""
    source: str = MEASURED


RATES = {
    "read": Rate(13.8),
    "quality": Rate(1.8),
    "near-duplicates": Rate(8.3),
    "decontamination": Rate(9.1),
    "tokenise": Rate(5.1),
}
"""Steps in their order; `read` decodes JSON lines and drops exact duplicates. Extraction from HTML is not among them."""
