"""A row of a table as a document: which columns hold the text and its provenance. JSONL, Parquet and the hub share it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import streams

TEXT_COLUMNS = ("text", "content", "document")
"""Columns that hold the text, in order of preference."""
CODE_COLUMNS = ("code", "tests")
"""Columns that together are the text of a row that has none of the others: a module and what tests it."""
TIME_COLUMNS = ("time", "date", "timestamp", "created")
"""Columns that hold the time, in order of preference: FineWeb has ``date``, C4 ``timestamp``, Dolma ``created``."""
COLUMNS = (
    *TEXT_COLUMNS,
    *CODE_COLUMNS,
    *TIME_COLUMNS,
    *("id", "domain", "source", "licence", "license", "label", "url", "synthetic", "generation"),
)
"""All columns that are read; others need not be loaded."""
DEEPEST = 1000
"""Generations that are believed; a larger number has another meaning."""


def document(row: Any, domain: str, source: str, licence: str) -> Document | Unreadable:
    """A row as a document; `licence` is for a row that states none.

    ``synthetic`` and ``generation`` are read where they are numbers; where only one is given, the other follows: text of a
    generation above 0 is wholly synthetic, synthetic text is of generation 1. A time that is not ISO 8601 is left out.
    """
    if not isinstance(row, Mapping):
        return Unreadable(domain, source, "row is no object with a text", str(row))
    text = _text(row)
    if text is None:
        return Unreadable(domain, source, f'row without a "{TEXT_COLUMNS[0]}"', str(dict(row)))
    if len(text) > streams.LONGEST:
        return Unreadable(domain, source, "longer than a document may be")
    made = _made(row.get("synthetic"), row.get("generation"))
    if isinstance(made, str):
        return Unreadable(domain, source, f"provenance that cannot be [{made}]", text)
    share, depth = made
    stated = str(row.get("licence") or row.get("license") or licence)
    url = row["url"] if isinstance(row.get("url"), str) else ""
    clean = decode(text.encode("utf-8", "replace"))
    return Document(domain, source, stated, clean, str(row.get("label") or ""), url, _time(row), share, depth)


def _text(row: Mapping[str, Any]) -> str | None:
    found = next((row[name] for name in TEXT_COLUMNS if isinstance(row.get(name), str)), None)
    if found is not None or not all(isinstance(row.get(name), str) for name in CODE_COLUMNS):
        return found
    return "\n\n\n".join(row[name].strip("\n") for name in CODE_COLUMNS) + "\n"


def _made(share: Any, depth: Any) -> tuple[float, int] | str:
    """Synthetic share and generation of a row, or what is wrong with them."""
    share, depth = _number(share), _number(depth)
    share = (1.0 if depth else 0.0) if share is None else share
    depth = (1 if share else 0) if depth is None else depth
    if not 0 <= share <= 1:
        return f"synthetic={share} is no share from 0 to 1"
    if not 0 <= depth <= DEEPEST or depth != int(depth):
        return f"generation={depth} is no depth"
    if (share > 0) != (depth > 0):
        return f"synthetic={share} at generation={depth}"
    return float(share), int(depth)


def _number(value: Any) -> float | None:
    """Whole numbers stay whole: they may be larger than any float."""
    return value if isinstance(value, int | float) and value == value else None


def _time(row: Mapping[str, Any]) -> str:
    for name in TIME_COLUMNS:
        value = row.get(name)
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, str) and _is_time(value):
            return value
    return ""


def _is_time(text: str) -> bool:
    if re.fullmatch(r"\d{4}(-\d{2})?", text):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
