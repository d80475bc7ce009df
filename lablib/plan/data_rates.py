"""How fast a core prepares text, by step: measured constants that plans of data preparation rest on."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = "python -m bench.data.scale, 2026-11-26 (docs/data.md, At scale)"


@dataclass(frozen=True)
class Rate:
    """One step's speed."""

    mb_per_second: float
    """Megabytes of text a CPU-second."""
    source: str = MEASURED


RATES = {
    "read": Rate(20.0),
    "quality": Rate(6.0),
    "near-duplicates": Rate(15.0),
    "decontamination": Rate(20.0),
    "tokenise": Rate(8.0),
}
"""Steps in their order; `read` decodes JSON lines and drops exact duplicates. Extraction from HTML is not among them."""
