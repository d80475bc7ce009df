"""Items of a benchmark: an id, a question, and an answer where there is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lablib.data.tasks import split_items
from lablib.specs import LabError, Task


@dataclass(frozen=True, order=True)
class BenchmarkItem:
    """One test item."""

    id: str
    question: str
    answer: str = ""
    """What a solver should say, in a few words; empty where that is unknown."""


def of_task(task: Task) -> list[BenchmarkItem]:
    """The test items of one of the lab's own tasks; an id is the item's key."""
    return [BenchmarkItem(item.key, item.question, item.answer) for item in split_items(task, "test")]


def of_file(path: Path) -> list[BenchmarkItem]:
    """Rows of ``{"id", "question", "answer"?}``. Raises `LabError` that names the line which is wrong."""
    if not path.is_file():
        raise LabError(
            f'benchmarks: there is no file {path}; give a .jsonl file of {{"id", "question", "answer"}} rows'
        )
    return checked(_rows(path), str(path))


def _rows(path: Path) -> Iterator[BenchmarkItem]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _item(line, f"{path}, line {number}")


def _item(line: str, where: str) -> BenchmarkItem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise LabError(f"{where}: this is not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or row.get("id") in (None, ""):
        raise LabError(f'{where}: a row must be an object with an "id" and a "question" of text')
    return BenchmarkItem(str(row["id"]), row["question"], str(row.get("answer") or ""))


def checked(items: Iterable[BenchmarkItem], what: str) -> list[BenchmarkItem]:
    """The items sorted by id. Raises `LabError` where there is none or an id stands for two."""
    found = sorted(items)
    if not found:
        raise LabError(f"{what} holds no item, so nothing could be looked for; check the file")
    for before, after in pairwise(found):
        if before.id == after.id:
            raise LabError(f"{what}: two items have the id {after.id!r}; give each its own, so that a match names one")
    return found


def digest_of(items: list[BenchmarkItem]) -> str:
    """64 hex digits over all items, whatever their order."""
    rows = [[item.id, item.question, item.answer] for item in sorted(items)]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
