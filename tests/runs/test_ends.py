"""How a run came to its end where its ranks could not say so themselves: what was settled, the scheduler's word, a reboot."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.settle import settle
from lablib.runs import Recorder, Run, RunState, heartbeat, jsonl, orders
from lablib.runs.heartbeat import Pulse
from lablib.runs.orders import Order, Record, View
from lablib.specs import LabError, Prepare, Profile, write_atomic

SLURM = Profile(name="there", scheduler="slurm", retries=0)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[View | None], None]]:
    """Sets what the scheduler answers."""
    answer: list[View | None] = [None]
    monkeypatch.setitem(orders._watchers, "slurm", lambda run, held: answer[0])

    def set_to(view: View | None) -> None:
        answer[0] = view

    yield set_to


def submitted(root: Path, **order: Any) -> Run:
    """A run that Slurm has, whose one rank works on another machine."""
    run = Run.create(Prepare(), root, order=json.loads(Order(profile=SLURM, **order).to_json()))
    write_atomic(run.path / "scheduler.json", Record(system="slurm", job_id="7").to_json())
    return run


def beats(run: Run, **changes: Any) -> Pulse:
    pulse = replace(Pulse("node1", "boot", 1, "1", 0, "running", 1, time.time(), time.time()), **changes)
    write_atomic(run.path / "heartbeat" / "0.json", json.dumps(asdict(pulse)))
    return pulse


def began(run: Run) -> None:
    jsonl.event(run.path, "started", pid=1, rank=0, attempt=0)
    beats(run)


def test_out_of_memory_after_the_last_retry_is_failed_and_says_so(
    tmp_path: Path, sees: Callable[[View | None], None]
) -> None:
    run = submitted(tmp_path)
    began(run)
    sees(View(state="OUT_OF_MEMORY", nodes="node1"))
    assert settle(run, 0).outcome == "failed"
    assert run.state is RunState.FAILED
    assert run.failure == (
        "Slurm ended the job: OUT_OF_MEMORY on node1; 1 attempts in a row ended without a new checkpoint"
    )


def test_attempts_that_only_stopped_and_were_given_up_are_failed(
    tmp_path: Path, sees: Callable[[View | None], None]
) -> None:
    run = submitted(tmp_path)
    recorder = Recorder(run.path)
    with recorder.working():
        recorder.request_stop("limit")
    sees(View(state="FAILED", reason="NonZeroExitCode"))
    settle(run, 0)
    assert run.state is RunState.FAILED
    assert run.failure == "1 attempts in a row ended without a new checkpoint"


def test_a_local_run_that_is_ended_at_once_is_stopped(tmp_path: Path) -> None:
    run = Run.create(Prepare(), tmp_path)
    began(run)
    beats(run, host=socket.gethostname(), boot=heartbeat.boot_id(), pid=2**22 + 1)
    write_atomic(run.path / "scheduler.json", Record(job_id="1", pulse=asdict(Pulse.mine(-1, "submitted"))).to_json())
    write_atomic(run.path / orders.STOP, "{}")
    assert settle(run, 0).outcome == "stopped"
    assert run.state is RunState.STOPPED and run.failure == ""


def test_a_dependent_stays_failed_when_what_it_needed_is_resumed(
    tmp_path: Path, sees: Callable[[View | None], None]
) -> None:
    first = Run.create(Prepare(), tmp_path)
    second = submitted(tmp_path, after=(first.id,))
    with pytest.raises(LabError), Recorder(first.path).working():
        raise LabError("no corpus")
    sees(View(state="CANCELLED"))
    assert second.state is RunState.FAILED and "no corpus" in second.failure
    jsonl.event(first.path, "resubmitted", attempt=1)
    with Recorder(first.path).working():
        pass
    assert first.state is RunState.COMPLETED
    assert second.state is RunState.FAILED and "was resumed since" in second.failure


def test_a_job_that_was_taken_out_of_the_queue_by_its_owner_is_stopped(
    tmp_path: Path, sees: Callable[[View | None], None]
) -> None:
    first = Run.create(Prepare(), tmp_path)
    second = submitted(tmp_path, after=(first.id,))
    with pytest.raises(LabError), Recorder(first.path).working():
        raise LabError("no corpus")
    write_atomic(second.path / orders.STOP, "{}")
    sees(View(state="CANCELLED"))
    assert second.state is RunState.STOPPED


def test_a_job_that_slurm_has_forgotten_is_lost_once_its_ranks_are_silent(
    tmp_path: Path, sees: Callable[[View | None], None]
) -> None:
    run = submitted(tmp_path)
    began(run)
    forgotten = View(state=orders.UNKNOWN)
    orders.keep_view(run.path, forgotten)
    sees(forgotten)
    assert run.state is RunState.RUNNING  # it was only just noticed
    sees(forgotten.replace(at=time.time() - heartbeat.STALE - 1))
    assert run.state is RunState.LOST and "Slurm no longer knows the job" in run.failure
    later = time.time() + 5
    os.utime(run.path / "heartbeat" / "0.json", (later, later))
    assert run.state is RunState.RUNNING  # a rank has beaten since


def test_a_job_that_never_began_and_is_forgotten_is_lost(tmp_path: Path, sees: Callable[[View | None], None]) -> None:
    run = submitted(tmp_path)
    forgotten = View(state=orders.UNKNOWN, at=time.time() - heartbeat.STALE - 1)
    orders.keep_view(run.path, forgotten)
    sees(forgotten)
    assert run.state is RunState.LOST


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("the same", RunState.LOST), ("another of that name", RunState.RUNNING), ("", RunState.RUNNING)],
)
def test_a_process_from_before_a_reboot_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, expected: RunState
) -> None:
    monkeypatch.setattr(heartbeat, "machine_id", lambda: "the same")
    run = Run.create(Prepare(), tmp_path)
    beats(run, host=socket.gethostname(), boot="before", pid=os.getpid(), machine=machine)
    assert run.state is expected


def test_a_supervisor_from_before_a_reboot_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(Prepare(), tmp_path)
    mine = replace(Pulse.mine(-1, "submitted"), machine="the same")
    write_atomic(run.path / "scheduler.json", Record(job_id="1", pulse=asdict(mine)).to_json())
    assert run.state is RunState.QUEUED
    monkeypatch.setattr(heartbeat, "machine_id", lambda: "the same")
    monkeypatch.setattr(heartbeat, "boot_id", lambda: "after")
    assert run.state is RunState.LOST


def test_looking_at_another_users_run_keeps_what_was_seen_in_memory(
    tmp_path: Path, sees: Callable[[View | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(tmp_path)

    def forbidden(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(orders, "write_atomic", forbidden)
    orders.keep_view(run.path, View(state="PENDING", reason="Resources"))
    assert not (run.path / "view.json").exists()
    seen = run.view
    assert seen is not None and (seen.state, seen.reason) == ("PENDING", "Resources")
    assert run.state is RunState.QUEUED


DAMAGED = {
    "order.json": "{torn",
    "cluster.json": "[]",
    "estimate.json": "{}",
    "events.jsonl": '{"time": 1}\n',
    "scheduler.json": "null",
    "view.json": '"x"',
    "progress.json": '{"done": 1}',
    "recipe.json": '{"stage": "prepare", "vocab": "x"}',
    "artefacts.json": '[{"name": "model"}]',
    "settled.json": '{"attempt": 0, "outcome": "well"}',
    "manifest.json": "\x00",
    "forecast.json": "{}",
}
READ = ("recipe", "cluster", "estimate", "forecast", "manifest", "artefacts", "order", "held_by", "view", "state",
        "failure", "progress", "seconds", "outcome", "address")  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_and_nothing_else_is_raised(
    tmp_path: Path, sees: Callable[[View | None], None], name: str
) -> None:
    run = submitted(tmp_path)
    (run.path / name).write_text(DAMAGED[name])
    told = []
    for read in READ:
        try:
            getattr(run, read)
        except LabError as error:
            told.append(str(error))
    assert told and all(str(run.path / name) in one for one in told)


def test_progress_is_written_every_two_seconds_without_waiting_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(Run.create(Prepare(), tmp_path).path)
    clock, written = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "fsync", lambda number: written.append("waited"))
    for step in range(60):
        clock[0] += 0.1
        before = (recorder.path / "progress.json").read_text() if (recorder.path / "progress.json").exists() else ""
        recorder.progress(step, 1000)
        written += ["wrote"] if (recorder.path / "progress.json").read_text() != before else []
    assert written == ["wrote"] * 3


@pytest.mark.parametrize(("local_rank", "looks"), [("0", 5), ("1", 2)])
def test_ranks_beside_the_first_of_a_node_look_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_rank: str, looks: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    recorder = Recorder(Run.create(Prepare(), tmp_path).path, rank=1)
    clock, asked = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    honest = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: asked.append(path.name) or honest(path))
    for _ in range(100):
        clock[0] += 0.1
        assert not recorder.stop_requested
    assert asked == [orders.STOP] * looks
