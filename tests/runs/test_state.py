"""A run's state, told from its folder alone, with real processes that end in every way there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lablib.runs import Recorder, Run, RunState, heartbeat
from lablib.specs import LabError, Prepare

WORK = """
import sys, time
from pathlib import Path
from lablib.runs import Recorder
import lablib.runs.heartbeat as heartbeat
heartbeat.INTERVAL = 0.1
run = Recorder(Path(sys.argv[1]))
with run.working():
    {body}
"""


def start(run: Run, body: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORK.format(body=body), str(run.path)], stderr=subprocess.DEVNULL)


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Prepare(), tmp_path)


def test_queued_then_running_then_completed(run: Run) -> None:
    assert run.state is RunState.QUEUED
    begun = time.monotonic()
    job = start(run, "\n    while not (run.path / 'seen').exists(): time.sleep(0.02)")
    until(lambda: run.state is RunState.RUNNING)
    (run.path / "seen").touch()
    job.wait()
    assert run.state is RunState.COMPLETED
    assert 0 < run.seconds < time.monotonic() - begun


def test_an_exception_is_failed_and_shows_the_remote_traceback(run: Run) -> None:
    start(run, "raise RuntimeError('the disk sang')").wait()
    assert run.state is RunState.FAILED
    assert "the disk sang" in run.failure and "Traceback" in run.failure


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_polite_signal_lets_the_stage_save_and_stop(run: Run, number: signal.Signals) -> None:
    body = "\n    while not run.stop_requested: time.sleep(0.02)\n    run.event('saved')"
    job = start(run, body)
    until(lambda: run.state is RunState.RUNNING)
    job.send_signal(number)
    job.wait()
    assert run.state is RunState.STOPPED
    assert [event["kind"] for event in run.events()][-2:] == ["saved", "stopped"]


def test_a_killed_process_is_lost_at_once_and_its_time_still_counts(run: Run) -> None:
    job = start(run, "time.sleep(60)")
    until(lambda: run.state is RunState.RUNNING and run.seconds > 0.3)
    job.kill()
    job.wait()
    assert run.state is RunState.LOST
    spent = run.seconds
    start(run, "pass").wait()
    assert run.state is RunState.COMPLETED
    assert run.seconds >= spent > 0.3


def test_a_zombie_does_not_count_as_alive(run: Run) -> None:
    job = start(run, "time.sleep(60)")
    until(lambda: run.state is RunState.RUNNING)
    job.kill()  # and nobody waits for it
    until(lambda: run.state is RunState.LOST)
    job.wait()


def test_a_frozen_process_is_stalled_by_the_watchers_own_clock(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALE", 0.5)
    job = start(run, "time.sleep(60)")
    until(lambda: run.state is RunState.RUNNING)
    os.kill(job.pid, signal.SIGSTOP)
    until(lambda: run.state is RunState.STALLED)
    os.kill(job.pid, signal.SIGCONT)
    until(lambda: run.state is RunState.RUNNING)
    job.kill()
    job.wait()


def test_a_pid_that_was_given_to_another_process_is_not_mistaken_for_the_run(run: Run) -> None:
    mine = heartbeat.Pulse("h", heartbeat.boot_id(), os.getpid(), heartbeat.born(os.getpid()), 0, "running")
    other = heartbeat.Pulse("h", heartbeat.boot_id(), os.getpid(), "1", 0, "running")
    assert heartbeat.alive(mine) and not heartbeat.alive(other)


def test_following_a_live_run_yields_every_row_and_ends_with_it(run: Run) -> None:
    job = start(run, "\n    for i in range(20): run.log(i, loss=1.0 / (i + 1)); time.sleep(0.02)")
    until(lambda: run.state is not RunState.QUEUED)
    assert [row["step"] for row in run.follow(every=0.05)] == list(range(20))
    job.wait()


def test_a_step_that_a_resumed_run_logs_again_replaces_the_first(run: Run) -> None:
    recorder = Recorder(run.path)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0), (3, 1.0)):
        recorder.log(step, loss=loss)
    assert list(run.metrics()["loss"]) == [3.0, 2.0, 1.0]


def test_a_folder_that_is_no_run_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="lab jobs"):
        Run.open(tmp_path)


def test_waiting_for_another_run_is_not_work_and_preparing_data_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    recorder = Recorder(run.path)
    with recorder.working("waiting"):
        now[0] += 500
        assert run.state is RunState.WAITING and run.seconds == recorder.seconds == 0.0
        for phase, seconds in (("running", 20), ("preparing data", 300), ("running", 4)):
            recorder.enter(phase)
            now[0] += seconds
        recorder.enter("saving")
        assert run.seconds == recorder.seconds == 324, "as a screen sees it, and as money is counted"
    assert [event["seconds"] for event in run.events() if event["kind"] == "completed"] == [324]
