"""Batch scripts as they are rendered, for what cannot run here: containers, GPU servers, arrays. Checked by bash and by eye."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.components import vllm_server
from cluster.slurm import sbatch
from lablib.runs import Run, orders
from lablib.specs import Component, Container, LabError, Parallelism, Prepare, Profile


def batch(tmp_path: Path, count: int = 1, components: tuple[Component, ...] = (), **profile: Any) -> sbatch.Batch:
    where = Profile(
        **{"name": "ours", "scheduler": "slurm", "gpus_per_node": 4, "nodes": 8, "partition": "gpu", **profile}
    )
    order = orders.Order(profile=where, components=components)
    recipe = Prepare(corpus="core", parallelism=Parallelism(dp_shard=8))
    runs = [Run.create(recipe, tmp_path / "runs with spaces", order=json.loads(order.to_json())) for _ in range(count)]
    return sbatch.Batch(tuple(runs), tmp_path / "code")


def script(made: sbatch.Batch) -> str:
    """The lines, which bash must be able to read."""
    text = "\n".join(sbatch.lines(made))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    return text


def test_pyxis_is_an_option_of_srun_and_apptainer_a_prefix(tmp_path: Path) -> None:
    mounts = ("/shared:/shared",)
    pyxis = batch(tmp_path, container=Container(image="nvcr.io#nvidia/pytorch:25.09-py3", mounts=mounts))
    assert sbatch.parameters(pyxis)["srun_args"][-2:] == [
        "--container-image=nvcr.io#nvidia/pytorch:25.09-py3",
        "--container-mounts=/shared:/shared",
    ]
    apptainer = Container(image="/images/torch.sif", runtime="apptainer", mounts=mounts)
    assert apptainer.within(["python"]) == [
        *("apptainer", "exec", "--nv", "--bind", "/shared:/shared", "/images/torch.sif", "python")
    ]
    assert not [
        word for word in sbatch.parameters(batch(tmp_path, container=apptainer))["srun_args"] if "container" in word
    ]


def test_a_gpu_server_gets_a_node_beside_those_of_the_ranks(tmp_path: Path) -> None:
    made = batch(tmp_path, components=(vllm_server("/models/policy", tensor_parallel=4),))
    asked = sbatch.parameters(made)
    assert asked["nodes"] == 3 and {"--nodes=2", "--ntasks=8", "--overlap"} <= set(asked["srun_args"])
    assert "--relative=2" in script(made) and "cluster.components" in script(made)
    command = made.runs[0].order.components[0].command
    assert command[:4] == ("trl", "vllm-serve", "--model", "/models/policy") and "{port}" in command


def test_a_task_of_an_array_finds_its_own_folder_and_name(tmp_path: Path) -> None:
    made = batch(tmp_path, count=3)
    text = script(made)
    setting = [line for line in text.splitlines() if line.startswith(("run=", "job="))]
    for number, run in enumerate(made.runs):
        variables = f"SLURM_ARRAY_TASK_ID={number} SLURM_ARRAY_JOB_ID=77 SLURM_JOB_ID=77\n"
        told = subprocess.run(
            ["bash"],
            input=variables + "\n".join(setting) + '\necho "$run|$job"',
            text=True,
            capture_output=True,
            check=True,
        )
        assert told.stdout.strip() == f"{run.path}|77_{number}"
    alone = [line for line in script(batch(tmp_path)).splitlines() if line.startswith("job=")]
    told = subprocess.run(
        ["bash"], input=f"SLURM_JOB_ID=5\n{alone[0]}\necho $job", text=True, capture_output=True, check=True
    )
    assert told.stdout.strip() == "5"


def test_components_and_profiles_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="apptainer"):
        Component(name="judge", command=("x",), container=Container(image="a.sqsh"))
    with pytest.raises(LabError, match="not a component's name"):
        Component(name="../judge", command=("x",))
    with pytest.raises(LabError, match="ready"):
        Component(name="judge", command=("x",), ready="health; rm -rf /")
