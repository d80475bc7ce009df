"""Your own text: a folder, a .jsonl(.gz) file of {"text": …} rows, or one text file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lablib.data.corpus import slug
from lablib.data.documents import Document, Report, decode, file_sha256, silent
from lablib.specs import LabError, digest

TEXT = frozenset(
    {".txt", ".md", ".rst", ".tex", ".html", ".py", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".js", ".ts"}
)
"""Endings of files that are one document each."""
ROWS = (".jsonl", ".jsonl.gz", ".ndjson")
"""Endings of files with a JSON object a line."""
UNSTATED = "not stated (your own files)"


@dataclass(frozen=True)
class Files:
    """A folder or file. In a folder, each subfolder at its top is a domain, and files beside them share the folder's name."""

    path: Path
    download_bytes: int = 0

    def unavailable(self) -> str:
        """Says where the path has gone, if it has."""
        return "" if self.path.exists() else f"there is no {self.path}"

    def fetch(self, report: Report = silent) -> None:
        """Nothing to bring; raises `LabError` where there is no file that can be read."""
        if not self.files():
            raise LabError(f"{self.path} holds no text: files must end in {', '.join(sorted(TEXT))}, {', '.join(ROWS)}")

    def files(self) -> list[Path]:
        """Readable files, sorted by name; hidden ones are left out."""
        if self.path.is_file():
            return [self.path]
        found = (path for path in self.path.rglob("*") if path.is_file() and _readable(path))
        return sorted(path for path in found if not any(part.startswith(".") for part in self._inside(path).parts))

    def fingerprint(self) -> str:
        """Of names inside the folder and contents."""
        return digest([self.path.name, *([str(self._inside(path)), file_sha256(path)] for path in self.files())])

    def documents(self) -> Iterator[Document]:
        """A document a text file, a document a row. Raises `LabError` for a row without text."""
        for path in self.files():
            if path.name.endswith(ROWS):
                yield from self._rows(path)
            else:
                source = str(self._inside(path))
                yield Document(self._domain(path), source, UNSTATED, decode(path.read_bytes()))

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self.path) if self.path.is_dir() else Path(path.name)

    def _domain(self, path: Path) -> str:
        parts = self._inside(path).parts
        return slug(parts[0] if len(parts) > 1 else self.path.name.split(".")[0])

    def _rows(self, path: Path) -> Iterator[Document]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._document(path, number, line)

    def _document(self, path: Path, number: int, line: str) -> Document:
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise LabError(f"{path}, line {number}: this is not JSON ({error}); give one JSON object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise LabError(f'{path}, line {number}: a row must be an object with a "text" that is a string')
        domain = slug(str(row["domain"])) if row.get("domain") else self._domain(path)
        source = str(row.get("source") or f"{self._inside(path)}#{number}")
        licence = str(row.get("licence") or row.get("license") or UNSTATED)
        return Document(
            domain, source, licence, decode(row["text"].encode("utf-8", "replace")), str(row.get("label", ""))
        )


def _readable(path: Path) -> bool:
    return path.suffix.lower() in TEXT or path.name.endswith(ROWS)
