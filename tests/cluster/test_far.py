"""From a laptop to a login node: a real sshd on loopback, with keys and a known host of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import extend, resume, stop, submit, submit_all
from lablib.runs import Run, RunState
from lablib.specs import LabError, Prepare, Profile, variants

if TYPE_CHECKING:
    from cluster.dev import DevSlurm


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory, ports: Callable[[int], int]) -> Iterator[Path]:
    """The folder of an sshd's files; ``$LAB_SSH_CONFIG`` names it "login"."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("THE SSH TESTS DO NOT RUN: there is no sshd")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    port = ports(1)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile {folder}/pid\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n"
    )
    (folder / "config").write_text(
        f"Host login\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    before = os.environ.get("LAB_SSH_CONFIG")
    os.environ["LAB_SSH_CONFIG"] = str(folder / "config")
    _until_it_listens(port)
    yield folder
    os.environ.pop("LAB_SSH_CONFIG") if before is None else os.environ.update(LAB_SSH_CONFIG=before)
    server.terminate()
    server.wait()


def _until_it_listens(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < end, "sshd did not begin to listen"
            time.sleep(0.05)


@pytest.fixture
def there(login: Path, slurm: DevSlurm, tmp_path: Path) -> Profile:
    """A login node of the development Slurm."""
    # A login shell has Slurm's configuration by itself; the development Slurm's is a variable.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nSLURM_CONF={slurm.conf} LAB_HOME={tmp_path}/home exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    root = tmp_path / "far" / "runs"
    root.mkdir(parents=True)
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text number {number} " + "of many words " * 50)
    return Profile(
        name="far", scheduler="slurm", partition="gpu", ssh="login", root=root, python=str(python), ask_for_gpus=False,
        nodes=2, time="5 minutes", signal_seconds=20,
    )  # fmt: skip


def test_runs_are_submitted_watched_stopped_extended_and_resumed_over_ssh(there: Profile, tmp_path: Path) -> None:
    recipes = variants(Prepare(corpus=str(tmp_path / "texts"), vocab=300, heldout=0.2), {"vocab": [300, 320]})
    runs = submit_all(recipes, there, max_gpu_hours=1)
    assert [run.recipe.model_dump()["vocab"] for run in runs] == [300, 320]
    for run in runs:
        assert "mirrors" in str(run.path) and run.wait() is RunState.COMPLETED, run.failure
    again = Run.open(f"ssh://login{there.root}/{runs[0].id}")
    assert again.state is RunState.COMPLETED and again.recipe == runs[0].recipe
    assert not list(again.path.glob("data/*.bin"))  # shards stay where they are
    lacking = submit(Prepare(corpus=str(tmp_path / "texts"), vocab=300), there.replace(partition="short"), after=runs)
    assert extend(lacking, max_gpu_hours=3) and stop(lacking) in (0, 1)
    assert lacking.wait().finished
    if lacking.state is not RunState.COMPLETED:
        assert resume(lacking).wait() is RunState.COMPLETED, lacking.failure


def test_what_the_login_node_refuses_is_told_here(there: Profile, tmp_path: Path) -> None:
    recipe = Prepare(corpus=str(tmp_path / "texts"), vocab=300)
    with pytest.raises(LabError, match=r"login: .*partition='nosuch' is not one of"):
        submit(recipe, there.replace(partition="nosuch"))
    with pytest.raises(LabError, match="There is no run at ssh://login"):
        Run.open(f"ssh://login{tmp_path}/nothing")
    with pytest.raises(LabError, match="write user@host"):
        Run.open("ssh://-oProxyCommand=touch/x")
    with pytest.raises(LabError, match="needs ssh, and root"):
        submit(Prepare(corpus="core"), there.replace(root=None))
