"""Training rows: from a task's items or a .jsonl file, checked line by line, with what was left out counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lablib.data.tasks import Item, split_items
from lablib.models.chat import Message
from lablib.runs import Recorder
from lablib.specs import LabError, Task, write_atomic

ROLES = ("system", "user", "assistant")


def chat_items(task: Task) -> list[Item]:
    """A task's train items as user's turns. Raises `LabError` for a task with worked examples, which is not a chat."""
    if task.fewshot:
        raise LabError(f"task {task.name}: fewshot={task.fewshot} makes plain-text prompts, and this stage teaches chat; set fewshot=0")  # fmt: skip
    return split_items(task, "train")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file. Raises `LabError` with the line that is wrong, or for an empty file."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabError(f"{path}, line {number}: this is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise LabError(f"{path}, line {number}: a row is an object, not a {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise LabError(f"{path} has no rows")
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in one step, so that a reader sees all of them or none."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def check_messages(messages: object, where: str) -> list[Message]:
    """A conversation as given. Raises `LabError` where a message lacks a known role or text content."""
    if not isinstance(messages, list) or not messages:
        raise LabError(f'{where}: "messages" must be a list of {{"role", "content"}}')
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), str):  # fmt: skip
            raise LabError(f"{where}: a message needs a role among {', '.join(ROLES)} and a text content (got {message!r:.80})")  # fmt: skip
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def report_rows(run: Recorder, kept: int, too_long: int, longest: int) -> None:
    """Note how many rows train and how many were too long. Raises `LabError` where none is left."""
    run.note(rows={"kept": kept, "too_long": too_long})
    run.event("rows", kept=kept, too_long=too_long)
    if not kept:
        raise LabError(f"All {too_long} rows are longer than seq_len={longest} tokens; raise seq_len")
