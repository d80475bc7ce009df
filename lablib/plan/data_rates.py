"""How fast a core prepares text, by step: measured constants that plans of data preparation rest on."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = "python -m bench.data.scale --megabytes 12 24, 2026-11-26 (docs/data.md, At scale)"


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
"""Steps in their order; `read` decodes JSON lines and drops exact duplicates. Extraction from HTML is not among them."""
