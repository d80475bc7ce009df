"""The verifier's other half: a process that makes items again and scores answers, a JSON line in and a JSON line out."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from typing import IO, Any

from lablib.data.tasks.items import make_generator
from lablib.specs import Task

_MEMORY = 4 << 30
"""Bytes of address space; importing reasoning-gym maps about one."""


def score(source: Any, index: int, answer: str) -> dict[str, Any]:
    """``{"score": 1 or 0 or None, "error": text or None}`` for one answer.

    Only full credit is a point: reasoning-gym gives a share for merely containing the answer. A scorer that raises on
    an answer but accepts the item's own answer has met junk: 0, and the error is told. One that fails on its own answer
    is broken: None, which is neither right nor wrong.
    """
    entry = source[index]
    try:
        return {"score": float(_is_full(source.score_answer(answer, entry))), "error": None}
    except Exception as error:  # whatever a third-party scorer raises on hostile text is an outcome, not a crash
        reason = f"{type(error).__name__}: {error}"[:200]
        return {"score": 0.0 if _scores_itself(source, entry) else None, "error": reason}


def _is_full(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 1 - 1e-9


def _scores_itself(source: Any, entry: dict[str, Any]) -> bool:
    try:
        return _is_full(source.score_answer(entry["answer"], entry))
    except Exception:  # the same third-party scorer: any failure here means that it is broken
        return False


def confine() -> None:
    """Limit what a scorer can take: memory, no files written, no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Read the task, then answer each ``[index, answer]`` line until the input ends."""
    source = make_generator(Task.from_json(requests.readline()))
    confine()
    for line in requests:
        index, answer = json.loads(line)
        replies.write(json.dumps(score(source, index, answer)) + "\n")
        replies.flush()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a scorer prints must not look like a reply
    serve(sys.stdin, channel)
