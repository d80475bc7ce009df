"""Signals before, during and after a job's work, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lablib.runs import Run, RunState
from lablib.specs import Prepare

RANK = """
import os, signal, sys, time
from pathlib import Path
from lablib.runs import Recorder, signals

def strangers(number, frame):
    print("the library's handler", flush=True)

signal.signal(signal.SIGUSR2, strangers)
{before}
run = Recorder(Path(sys.argv[1]))
with run.working():
    {during}
{after}
print("end", signal.getsignal(signal.SIGUSR2) is strangers)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Prepare(), tmp_path)


def rank(run: Run, before: str = "", during: str = "pass", after: str = "") -> subprocess.CompletedProcess[str]:
    code = RANK.format(before=before, during=during, after=after)
    return subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, timeout=60)


def test_a_signal_before_the_work_is_a_stop_request_with_its_reason(run: Run) -> None:
    done = rank(run, "signals.catch(); os.kill(os.getpid(), signal.SIGUSR2)", "assert run.stop_requested")
    assert (done.returncode, done.stdout) == (0, "end False\n"), done.stderr
    assert run.state is RunState.STOPPED
    assert [(event["kind"], event.get("why")) for event in run.events()][-1] == ("stopped", "limit")


@pytest.mark.parametrize("number", ["SIGUSR2", "SIGTERM", "SIGINT"])
def test_a_signal_after_the_end_changes_nothing(run: Run, number: str) -> None:
    done = rank(run, "signals.catch()", after=f"os.kill(os.getpid(), signal.{number}); time.sleep(0.1)")
    assert (done.returncode, done.stdout) == (0, "end False\n"), done.stderr
    assert run.state is RunState.COMPLETED
    assert [event["kind"] for event in run.events()] == ["started", "completed"]


def test_a_library_that_took_the_signals_is_replaced_again(run: Run) -> None:
    taken = "signals.catch(); signal.signal(signal.SIGUSR2, strangers); signals.catch()"
    done = rank(run, taken, "os.kill(os.getpid(), signal.SIGUSR2)")
    assert "library" not in done.stdout and run.state is RunState.STOPPED


def test_a_process_that_is_more_than_a_rank_gets_its_handlers_back(run: Run) -> None:
    done = rank(run, during="os.kill(os.getpid(), signal.SIGUSR2)", after="os.kill(os.getpid(), signal.SIGUSR2)")
    assert done.stdout == "the library's handler\nend True\n", done.stderr
    assert run.state is RunState.STOPPED


def test_tests_themselves_can_still_be_interrupted(run: Run) -> None:
    from lablib.runs import Recorder

    with Recorder(run.path).working():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
