"""Where the wall time of a run's attempts went: the goodput that a run really had, from its rows and events alone.

Useful is the time of steps whose updates are part of the result. Steps that a later attempt, or a rewind after a spike, did
again are lost work, whoever did them first. The names of the parts are those of the plan's goodput (`lablib.plan.goodput`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lablib.runs import jsonl
from lablib.runs.run import Run
from lablib.runs.state import ENDED

OUTSIDE = ("lost", "attempt", "resubmitted", "extended")
"""Events that others write, perhaps long after the attempt."""
PARTS = ("start", "restarts", "lost work", "checkpoints", "evaluation", "data", "other")
"""Loading before the first step of the first attempt and of later ones; steps done again; saving; evaluating; steps waiting for
data; what is left (what was not logged before a kill, traces, the model's export)."""


@dataclass(frozen=True)
class Account:
    """Wall seconds of all attempts and what became of them."""

    wall: float
    """Of all attempts, waiting for other runs excluded."""
    useful: float
    parts: dict[str, float]
    """Seconds by cause, all of `PARTS`; with `useful` they add up to `wall`."""
    attempts: int
    between: float
    """Seconds between attempts, which no attempt was there to spend: not part of `wall`."""

    @property
    def goodput(self) -> float:
        """Useful share of the wall time."""
        return self.useful / self.wall


@dataclass
class _Attempt:
    """What one attempt wrote, read in order of time."""

    begun: float
    ended: float
    at: int = 0
    """Updates made up to the last row."""
    worked: float = 0.0
    """When its first step began; 0 before that is known."""
    aside: float = 0.0
    """Seconds of saving and evaluating since the last row."""


@dataclass
class _Book:
    """What is known so far of all attempts."""

    spans: list[tuple[int, int, float]] = field(default_factory=list)
    """(Step before, step after, seconds without the wait for data) of steps that count."""
    lost: float = 0.0
    saving: float = 0.0
    evaluating: float = 0.0
    waiting: float = 0.0

    def row(self, attempt: _Attempt, row: dict[str, Any]) -> None:
        """A logged row: the steps since the one before it in its attempt."""
        steps = row["step"] - attempt.at
        if steps <= 0:
            return
        seconds, wait = steps * row["step_seconds"], row.get("data_wait", 0.0)
        if not attempt.worked:
            attempt.worked = max(attempt.begun, row["time"] - seconds - attempt.aside)
            self.back_to(attempt.at)
        self.spans.append((attempt.at, row["step"], seconds * (1 - wait)))
        self.waiting += seconds * wait
        attempt.at, attempt.aside = row["step"], 0.0

    def back_to(self, step: int) -> None:
        """What was done beyond `step` is lost."""
        kept = []
        for first, last, seconds in self.spans:
            share = max(0, min(last, step) - first) / (last - first)
            self.lost += seconds * (1 - share)
            if share > 0:
                kept.append((first, min(last, step), seconds * share))
        self.spans = kept

    def event(self, attempt: _Attempt, event: dict[str, Any]) -> None:
        """Something that took time, or moved the run back."""
        kind, took = event["kind"], float(event.get("took", 0.0))
        if kind in ("resumed", "rewound"):
            attempt.at = _back_at(event)
            self.back_to(attempt.at)
        self.saving += took if kind == "checkpoint" else 0.0
        self.evaluating += took if kind == "evaluated" else 0.0
        attempt.aside += took


def _back_at(event: dict[str, Any]) -> int:
    """The step that a run resumed at or was rewound to; post-training runs once told only the checkpoint's name."""
    if event["kind"] == "rewound":
        return int(event["to_step"])
    return int(event["at_step"] if "at_step" in event else event["checkpoint"].rpartition("-")[2])


def account(run: Run) -> Account | None:
    """The account of a run that logs its steps; None before its first row, and for stages that do not time theirs."""
    rows = [
        row for row in jsonl.read(run.path / "metrics" / "train.jsonl") if row.get("step_seconds") and "time" in row
    ]
    attempts = [_Attempt(begun, ended) for begun, ended in _attempts(run, rows)]
    if not rows or not attempts:
        return None
    book = _Book()
    timeline = sorted([*rows, *(event for event in run.events() if "time" in event)], key=lambda entry: entry["time"])
    for attempt in attempts:
        for entry in timeline:
            if attempt.begun <= entry["time"] <= attempt.ended:
                book.event(attempt, entry) if "kind" in entry else book.row(attempt, entry)
    return _closed(book, attempts)


def _closed(book: _Book, attempts: list[_Attempt]) -> Account:
    loading = [(attempt.worked or attempt.ended) - attempt.begun for attempt in attempts]
    wall = sum(attempt.ended - attempt.begun for attempt in attempts)
    useful = sum(seconds for _, _, seconds in book.spans)
    known = (loading[0], sum(loading[1:]), book.lost, book.saving, book.evaluating, book.waiting)
    parts = dict(zip(PARTS, (*known, max(0.0, wall - useful - sum(known))), strict=True))
    between = sum(after.begun - before.ended for before, after in pairwise(attempts))
    return Account(max(wall, useful + sum(known)), useful, parts, len(attempts), max(0.0, between))


def _attempts(run: Run, rows: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """When each attempt that came to work began, and when it was last heard of."""
    events = [event for event in run.events() if "time" in event]
    starts = [event["time"] for event in events if event["kind"] == "started"]
    for begun, following in pairwise([*starts, float("inf")]):
        own = [event for event in events if begun <= event["time"] < following]
        ended = [event["time"] for event in own if event["kind"] in ENDED and event["kind"] != "lost"]
        heard = [entry["time"] for entry in [*own, *rows] if begun <= entry["time"] < following and entry.get("kind") not in OUTSIDE]  # fmt: skip
        waited = [event["time"] for event in own if event["kind"] == "phase" and event.get("left") == "waiting"]
        begun = waited[-1] if waited else begun
        lived = [begun + event["seconds"] for event in own if event["kind"] == "lost"]
        yield begun, (ended[0] if ended else min(following, max([*heard, *lived])))
