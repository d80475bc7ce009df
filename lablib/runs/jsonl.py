"""Append-only JSON lines: one writer a file, any number of readers, a torn last line tolerated."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from lablib.specs import LabError


def _clean(value: Any) -> Any:
    """JSON has no NaN or infinity; they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one line in one write, so that a reader or a kill sees all of it or a part without its newline.

    Where the file ends in such a part (a writer was killed), the new line starts on a line of its own.
    """
    line = json.dumps({key: _clean(value) for key, value in row.items()}, ensure_ascii=False, default=str) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())


def event(run: Path, kind: str, **details: Any) -> None:
    """Append what happened to a run, with the time, to the ``events.jsonl`` of its folder."""
    append(run / "events.jsonl", {"kind": kind, "time": time.time(), **details})


def events(run: Path) -> list[dict[str, Any]]:
    """What happened to a run, in order. Raises `LabError` for a row that is no event: it has no kind."""
    file = run / "events.jsonl"
    rows = read(file)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("kind"), str):
            raise LabError(f"{file} is damaged (row {number} has no kind: {row!r:.60}); take the row out")
    return rows


class Tail:
    """Reads the complete lines that were added since the last call; a half-written line waits for its end."""

    def __init__(self, path: Path) -> None:
        """The file may not exist yet."""
        self.path, self._offset = path, 0

    def read(self) -> list[dict[str, Any]]:
        """New rows in order; lines that a killed writer left broken are skipped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data.rfind(b"\n") + 1
        self._offset += complete
        return [row for line in data[:complete].splitlines() if (row := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a file; an absent file has none."""
    return Tail(path).read()


def last(path: Path, most_bytes: int = 16_384) -> list[dict[str, Any]]:
    """The complete rows in the last `most_bytes` of a file, however long it is; an absent file has none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            data = file.read()
    except FileNotFoundError:
        return []
    begin = 0 if size <= most_bytes else data.find(b"\n") + 1
    complete = data.rfind(b"\n") + 1
    return [row for line in data[begin:complete].splitlines() if (row := _parse(line)) is not None]
