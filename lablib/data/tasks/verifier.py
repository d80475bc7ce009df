"""`Verifier`: scores completions in a process of its own, so that threads, event loops and hostile text do no harm."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lablib.data.tasks.answer import extract_answer
from lablib.data.tasks.items import Item, make_generator
from lablib.specs import LabError, Task

_START_SECONDS = 120.0
"""Longest wait for a first reply: the process imports its libraries on a busy machine."""


@dataclass(frozen=True)
class Verdict:
    """One completion's score: 1 right, 0 wrong, None where the scorer itself is broken for this item."""

    score: float | None
    answer: str
    """What was taken for the answer."""
    error: str | None = None
    """What the scorer raised, or "timeout"; counted apart from wrong answers."""


class Verifier:
    """A scorer for one task. Safe to use from any thread or event loop; use it as a context manager.

    Scorers run in a child process, because ones that use signals silently return zero outside the main thread
    (verl#5635), and because what a model writes must not run in the trainer. A child that hangs is replaced.
    """

    def __init__(self, task: Task, seconds: float = 10.0) -> None:
        """`seconds` is the longest that one answer may take. Raises `LabError` for a task that cannot be scored."""
        make_generator(task)
        self.task, self.seconds, self.errors, self.scored = task, seconds, 0, 0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def score(self, items: Sequence[Item], completions: Sequence[object]) -> list[Verdict]:
        """A verdict for each completion of the item beside it. Never raises for anything a model can write."""
        if len(items) != len(completions):
            raise LabError(f"{len(completions)} completions for {len(items)} items; give one completion an item")
        with self._lock:
            verdicts = [self._one(item, text) for item, text in zip(items, completions, strict=True)]
        self.scored += len(verdicts)
        self.errors += sum(verdict.error is not None for verdict in verdicts)
        return verdicts

    def check(self, items: Sequence[Item]) -> None:
        """Raises `LabError` where the scorer does not accept the items' own answers: every reward would be wrong."""
        for item, verdict in zip(items, self.score(items, [item.answer for item in items]), strict=True):
            if verdict.score != 1:
                raise LabError(f"task {self.task.name}: {self.task.generator} does not accept its own answer {item.answer!r} to {item.question!r:.80} ({verdict.error}); choose another generator")  # fmt: skip

    def _one(self, item: Item, completion: object) -> Verdict:
        answer = extract_answer(completion, item.is_chat)
        if not answer:
            return Verdict(0.0, answer)
        try:
            reply = self._ask(json.dumps([item.index, answer]))
        except TimeoutError:
            self.close()
            return Verdict(0.0, answer, "timeout")
        if reply is None:
            self.close()
            return Verdict(0.0, answer, "the scorer's process died")
        return Verdict(reply["score"], answer, reply["error"])

    def _ask(self, line: str) -> dict[str, Any] | None:
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return None
        reply = self._read(child)
        self._fresh = False
        return json.loads(reply) if reply else None

    def _read(self, child: subprocess.Popen[bytes]) -> bytes:
        """One line; empty where the process died. Raises TimeoutError."""
        assert child.stdout is not None
        seconds = self.seconds + _START_SECONDS if self._fresh else self.seconds
        if not select.select([child.stdout], [], [], seconds)[0]:
            raise TimeoutError
        return child.stdout.readline()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child, self._fresh = _start(self.task), True
        return self._child

    def close(self) -> None:
        """End the child process; the next score starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def _start(task: Task) -> subprocess.Popen[bytes]:
    """A worker that has been told its task. It gets the module path and nothing else of this process's environment."""
    root = str(Path(__file__).resolve().parents[3])
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
    command = [sys.executable, "-m", "lablib.data.tasks.worker"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(json.dumps(task.model_dump(mode="json")).encode() + b"\n")
    return child
