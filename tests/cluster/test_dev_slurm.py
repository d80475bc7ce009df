"""The development Slurm starts twice without harm, stands beside another one, and leaves no trace."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster.dev import DevSlurm, Shape
from cluster.dev.slurm import HOSTS


def hostnames(found: DevSlurm, nodes: int) -> str:
    environment = {**os.environ, "SLURM_CONF": str(found.conf)}
    return subprocess.run(["srun", f"-N{nodes}", "printenv", "SLURMD_NODENAME"], env=environment, capture_output=True, text=True, check=True).stdout  # fmt: skip


def test_a_second_one_without_accounting_beside_the_first(slurm: DevSlurm, ports: Callable[[int], int]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lab-slurm-"))
    before = HOSTS.read_text()
    other = DevSlurm(folder, Shape(nodes=2, gpus=2, accounting=False, port=ports(30)))
    other.up()
    try:
        assert sorted(hostnames(other, 2).split()) == ["lab1", "lab2"]
        pids = {file.name: file.read_text() for file in (folder / "run").glob("*.pid")}
        DevSlurm(folder).up()
        assert {file.name: file.read_text() for file in (folder / "run").glob("*.pid")} == pids, "nothing started twice"
        assert DevSlurm(folder).shape.gpus == 2 and "gpu:h100:2" in other.status()
    finally:
        other.down(wipe=True)
    other.down(wipe=True)
    assert not folder.exists() and HOSTS.read_text() == before
    alive = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False).stdout
    assert alive == "", "no daemon is left"
    assert sorted(hostnames(slurm, 4).split()) == ["lab1", "lab2", "lab3", "lab4"], "and the first one is unharmed"
