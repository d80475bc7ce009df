"""What follows the end of an attempt: the run is at its end, or starts again by itself.

``python -m cluster.settle RUN CODE JOB`` is the last thing of a batch script; the local supervisor calls `settle` itself.
Where the run starts again it puts the job back into the queue and ends with `AGAIN`; any other status becomes the job's
own, so that jobs which depend on it start only where the run has completed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.slurm import query
from lablib.runs import Recorder, Run, heartbeat, jsonl, orders
from lablib.runs.state import HOPELESS, STOPPED
from lablib.specs import write_atomic

AGAIN = 85
"""Exit status that asks for another attempt (ERESTART)."""
GAVE_UP = 1

Outcome = Literal["completed", "stopped", "again", "released", "failed"]
STATUS: dict[Outcome, int] = {
    "completed": 0,
    "stopped": STOPPED,
    "again": AGAIN,
    "released": STOPPED,
    "failed": GAVE_UP,
}
"""What the batch script is told. A run is "released" where Slurm itself took the nodes away (requeued, preempted or
cancelled): what becomes of the job is then Slurm's to say."""


BROKEN = {
    "hang": "it hung",
    "component": "a component ended",
    "unwell": "a node is not well",
    "overdue": "it had not saved when its time ended",
}
"""Events that explain why an attempt was ended from outside, or did not begin."""


@dataclass(frozen=True)
class Attempt:
    """What is known of an attempt at its end."""

    codes: tuple[int | None, ...]
    """Exit statuses as the ranks wrote them; None for a rank that died without a word. Empty where none began."""
    why: str
    """Why it stopped, where it saved and stopped: "asked", "limit", "signal", "budget", or one of `BROKEN`."""
    progressed: bool
    """Whether it left a newer checkpoint than the run had."""
    failures: int
    """Attempts just before this one that left none."""


@dataclass(frozen=True)
class Decision:
    """What to do, and why, for people."""

    outcome: Outcome
    reason: str


def decide(attempt: Attempt, retries: int, asked_to_stop: bool, taken: bool = False) -> Decision:
    """The rule of survival, pure.

    A run that completed or was stopped by a person or its budget is at its end. One that ran into its time limit or was
    preempted goes on; one whose nodes Slurm has `taken` is left to Slurm. One that failed or died goes on unless the error would only repeat. In each case the run is given
    up after `retries` further attempts in a row without a new checkpoint.
    """
    codes = attempt.codes
    if codes and all(code == 0 for code in codes):
        return Decision("completed", "")
    stopped = bool(codes) and all(code in (0, STOPPED) for code in codes)
    if taken and not asked_to_stop:
        return Decision("released", "Slurm ended it")
    if stopped and attempt.why not in ("limit", *BROKEN):
        return Decision(
            "stopped",
            {"budget": "its budget is spent", "asked": "it was asked to"}.get(attempt.why, "it was signalled"),
        )
    if asked_to_stop:
        return Decision("stopped", "it was asked to")
    if HOPELESS in codes:
        return Decision("failed", "another attempt would fail alike")
    if not attempt.progressed and attempt.failures >= retries:
        return Decision("failed", f"{attempt.failures + 1} attempts in a row ended without a new checkpoint")
    if attempt.why in BROKEN:
        return Decision("again", BROKEN[attempt.why])
    if stopped:
        return Decision("again", "its time was up or it was preempted")
    return Decision("again", "a process failed" if any(codes) else "its processes died")


def settle(run: Run, number: int, taken: bool = False) -> Decision:
    """Account for attempt `number`, which just ended, and decide; leaves an ``attempt`` event, and ``settled.json`` at
    the run's end. `taken` where the job that it ran in is being requeued or cancelled by Slurm."""
    order, pulses = run.order, [pulse for pulse in run.pulses if pulse.attempt == number]
    Recorder(run.path).account_for_lost_attempts()
    events = run.events()
    done = Attempt(
        codes=_codes(pulses, run.recipe.gpus),
        why=_why(events, number),
        progressed=made_progress(events, number),
        failures=_failures(events),
    )
    none_left = done.why == "unwell" and not _node_is_left(run, events, number)
    taken = taken or (order.profile.scheduler == "slurm" and done.why == "signal")
    found = decide(done, order.profile.retries, (run.path / orders.STOP).exists(), taken)
    if none_left:
        found = Decision("failed", "no node is left that is well; `lab resume` looks at all of them again")
    else:
        _exclude(run, events, number)
    jsonl.event(
        run.path, "attempt", attempt=number, outcome=found.outcome, reason=found.reason, progressed=done.progressed
    )
    if found.outcome not in ("again", "released"):
        write_atomic(run.path / "settled.json", json.dumps({"attempt": number, "outcome": found.outcome}))
    return found


def _bad(events: list[dict[str, Any]], number: int) -> set[str]:
    return {event["node"] for event in events[_since(events, number) :] if event["kind"] == "unwell"}


def _node_is_left(run: Run, events: list[dict[str, Any]], number: int) -> bool:
    """Whether the partition has enough nodes without those found bad; yes where Slurm cannot be asked."""
    profile, bad = run.order.profile, _bad(events, number) | set(run.order.exclude)
    if profile.scheduler != "slurm":
        return True
    nodes = query.nodes(profile.partition)
    return not nodes or len(nodes - bad) >= run.order.nodes(run.recipe.gpus)


def _exclude(run: Run, events: list[dict[str, Any]], number: int) -> None:
    """Keep later attempts away from nodes that this one found bad."""
    bad = _bad(events, number)
    if bad - set(run.order.exclude):
        run.order.replace(exclude=(*run.order.exclude, *sorted(bad - set(run.order.exclude)))).save(
            run.path / "order.json"
        )


def _codes(pulses: list[heartbeat.Pulse], world: int) -> tuple[int | None, ...]:
    missing = [None] * (world - len(pulses)) if pulses else []
    return (*(pulse.exit for pulse in pulses), *missing)


def _since(events: list[dict[str, Any]], number: int) -> int:
    """Index of the attempt's first event: rank 0's start, or what another rank had to say before it."""
    ours = (i for i, event in enumerate(events) if event.get("attempt", 0 if event["kind"] == "started" else None) == number)  # fmt: skip
    return next(ours, len(events))


def _why(events: list[dict[str, Any]], number: int) -> str:
    ours = events[_since(events, number) :]
    for event in ours:
        if event["kind"] in BROKEN:
            return str(event["kind"])
    ends = [event for event in ours if event["kind"] == "stopped"]
    return str(ends[-1].get("why", "signal")) if ends else ""


def made_progress(events: list[dict[str, Any]], number: int) -> bool:
    """Whether attempt `number` left more than those before it: a further checkpoint, or a decision to go back from a spike."""
    begun = _since(events, number)
    healed = any(event["kind"] == "rewound" for event in events[begun:])
    return healed or _kept(events) > _kept(events[:begun])


def _kept(events: list[dict[str, Any]]) -> float:
    """Steps (or whatever a stage counts) that need not be done again; a run that went back from a spike has fewer."""
    kept = 0
    for event in events:
        if event["kind"] == "checkpoint":
            kept = max(kept, event.get("at_step", 0))
        elif event["kind"] == "rewound":
            kept = min(kept, event["to_step"])
    return kept


def _failures(events: list[dict[str, Any]]) -> int:
    """Attempts in a row, up to now, that were to be tried again and left no checkpoint."""
    count = 0
    for event in reversed([event for event in events if event["kind"] in ("attempt", "resubmitted")]):
        if event["kind"] == "resubmitted" or event["progressed"] or event["outcome"] != "again":
            break
        count += 1
    return count


def settle_lost(run: Run, number: int) -> bool:
    """Account for the attempt before `number` where nothing did, because its nodes were lost with the batch script; whether
    another one may follow."""
    events = run.events()
    last = max((event.get("attempt", 0) for event in events if event["kind"] == "started"), default=-1)
    if not 0 <= last < number or any(one["kind"] == "attempt" and one["attempt"] >= last for one in events):
        return True
    return settle(run, last).outcome in ("again", "released")


def main(folder: str, code: str, job: str) -> int:
    """Settle and say so in the job's log; gives the exit status for the batch script. With "before" for a code, at the
    start of an attempt: 0 where it may begin."""
    run = Run(Path(folder))
    if code == "before":
        return 0 if settle_lost(run, int(os.environ["LAB_ATTEMPT"])) else GAVE_UP
    found = settle(run, int(os.environ["LAB_ATTEMPT"]), query.taken_away(job))
    sys.stderr.write(f"attempt ended with status {code}: {found.outcome} {found.reason}\n")
    if found.outcome == "again":
        _requeue(run, job)
    return STATUS[found.outcome]


def _requeue(run: Run, job: str) -> None:
    """Put our own job back into the queue, away from nodes that were found bad."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # requeueing ends this script, and us with it
    query.command("scontrol", "requeue", job)
    profile, bad = run.order.profile, run.order.exclude
    if bad:
        nodes = ",".join(filter(None, [profile.exclude, *bad]))
        query.command("scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
