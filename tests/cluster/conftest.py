"""The real Slurm that tests submit to: started once a session, in a folder and on ports of its own, gone without a trace."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import mixing
from cluster.dev import DevSlurm, Shape, missing
from lablib.runs import Recorder, Run
from lablib.specs import Profile
from lablib.stages import execute


@pytest.fixture(scope="session")
def slurm() -> Iterator[DevSlurm]:
    """Four nodes with accounting. Where Slurm is missing these tests are skipped, loudly; in CI they fail."""
    reason = missing()
    if reason:
        said = f"THE SLURM TESTS DO NOT RUN: {reason}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    folder = Path(tempfile.mkdtemp(prefix="lab-slurm-"))
    found = DevSlurm(folder, Shape(port=free_ports(30)))
    before = os.environ.get("SLURM_CONF")
    try:
        found.up()
        os.environ["SLURM_CONF"] = str(found.conf)
        yield found
    finally:
        os.environ.pop("SLURM_CONF", None) if before is None else os.environ.update(SLURM_CONF=before)
        found.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The studies' `submit_all` in this process; how many recipes each call was given."""
    calls: list[int] = []

    def submit_all(recipes: Sequence[Any], profile: Profile, root: Path, at_once: int = 0) -> list[Run]:
        calls.append(len(recipes))
        made = []
        for recipe in recipes:
            run = Recorder.create(root, recipe)
            with run.working():
                execute(recipe, run)
            made.append(Run.open(run.path))
        return made

    monkeypatch.setattr(mixing, "submit_all", submit_all)
    return calls


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(27000, 32000, 50):
        if all(_free(first + number) for number in range(count)):
            return first
    raise RuntimeError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session", name="ports")
def ports_fixture() -> Callable[[int], int]:
    """Gives the first of so many free ports in a row."""
    return free_ports
