"""Samples of what was dropped or set aside, with the reason: the same ones every time."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lablib.data.documents import Document

SAMPLES = 20
"""Documents that are kept for each reason, those of the smallest hashes: the same ones every time."""
EXCERPT = 2000
"""Characters of each that are kept."""


class Samples:
    """The documents of the smallest hashes for each reason."""

    def __init__(self) -> None:
        """None yet."""
        self._kept: defaultdict[str, list[tuple[int, str, str, int, dict[str, Any]]]] = defaultdict(list)
        self._seen: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def add(self, sha256: str, kind: str, row: dict[str, Any]) -> None:
        """A document that went for a reason of a `kind`, and what is shown of it; of equal ones the source decides."""
        held = self._kept[kind]
        self._seen[kind] += 1
        told = row.get("source", ""), row.get("reason", "")
        entry = (-int(sha256[:15], 16), *told, self._seen[kind], row)
        if len(held) < SAMPLES:
            heapq.heappush(held, entry)
        else:
            heapq.heappushpop(held, entry)

    def save(self, path: Path) -> None:
        """Write a JSON line each, sorted by reason, hash and source."""
        rows = [entry[-1] for held in self._kept.values() for entry in held]
        rows.sort(key=lambda row: (row.get("reason", ""), row["sha256"], row.get("source", "")))
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def dropped(document: Document, reason: str) -> dict[str, Any]:
    """What is shown of a document that went."""
    known = {"reason": reason, "domain": document.domain, "source": document.source, "sha256": document.sha256}
    return {**known, "text": document.text[:EXCERPT]}


def of_run(folder: Path, kind: str, step: str = "") -> list[dict[str, Any]]:
    """Samples that a run kept of ``dropped`` or ``changed`` documents, of the steps whose name contains `step`, which each
    row names."""
    files = [file for file in sorted((folder / kind).glob("*.jsonl")) if step in file.stem]
    texts = [(file.stem, file.read_text(encoding="utf-8")) for file in files]
    return [{"step": name, **json.loads(line)} for name, text in texts for line in text.split("\n") if line]
