"""A far run as one meets it here: through a command of the name ssh that stays on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lablib.runs import Recorder, Run, RunState, mirror
from lablib.specs import Prepare


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def far(tmp_path: Path, home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in a folder that only the login node knows."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text('#!/bin/sh\n[ -e "$0.away" ] && exit 255\nfor last; do :; done\nexec sh -c "$last"\n')
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(mirror, "EVERY", 0.1)
    return Run.create(Prepare(), tmp_path / "far")


def test_the_folder_of_a_mirror_is_kept_up_to_date_as_its_address_is(far: Run) -> None:
    folder = mirror.open_mirror(f"ssh://login{far.path}")  # and nobody holds it
    seen = Run.open(folder)
    assert seen.state is RunState.QUEUED
    with Recorder(far.path).working() as recorder:
        recorder.log(1, loss=2.0)
        until(lambda: len(seen.rows()) == 1)
    until(lambda: seen.state is RunState.COMPLETED)


def test_what_is_here_can_be_read_while_the_network_is_away(far: Run, tmp_path: Path) -> None:
    folder = mirror.open_mirror(f"ssh://login{far.path}")
    (tmp_path / "tools" / "ssh.away").touch()
    assert Run.open(folder).recipe == far.recipe


def test_the_address_of_a_run_is_what_every_command_finds_it_by(far: Run) -> None:
    address = Run.open(f"ssh://login{far.path}").address
    assert address == f"ssh://login{far.path}" and far.address == far.id
    with Recorder(far.path).working() as recorder:
        recorder.log(1, loss=2.0)
    words = [sys.executable, "-m", "lab", "watch", address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "step 1  loss 2" in done.stdout, done.stderr
