"""A node of a profile measures itself in a job, and the profile's plans then rest on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import calibrate, jobs
from cluster.calibration import kept
from lablib import Calibrate, Cluster, LabError, Parallelism, Prepare, Pretrain, Run, estimate
from lablib.plan import efficiency, probe
from lablib.report import export
from lablib.specs import Profile

if TYPE_CHECKING:
    from cluster.dev import DevSlurm

RECIPE = Pretrain(model=probe.shape(6, 256, 768, 256), tokens="1M", seq_len=256, batch_tokens=2048, precision="fp32",
                  parallelism=Parallelism(micro_batch_size=8))  # fmt: skip
"""The probe's own middle step as a recipe."""


@pytest.fixture(scope="module")
def measured(slurm: DevSlurm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Cluster, Path]:
    """A calibrate run on the development Slurm, its cluster, and the LAB_HOME that it was kept in."""
    folder = tmp_path_factory.mktemp("calibrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(folder / "home"))
        made = calibrate(Profile.load("slurm-dev"), root=folder / "runs")
        (name,) = jobs(folder / "runs")["run"]
    return Run(folder / "runs" / name), made, folder / "home"


def test_plans_for_the_profile_rest_on_what_its_node_measured(
    measured: tuple[Run, Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cluster, home = measured
    monkeypatch.setenv("LAB_HOME", str(home))
    assert run.order.profile.scheduler == "slurm" and run.view is not None, "it was a job"
    assert (cluster.name, cluster.nodes, cluster.gpus_per_node) == ("slurm-dev", 4, 4)
    assert Cluster.load("slurm-dev") == cluster and not (home / "local-cluster.json").exists()
    done = efficiency.of(cluster).calibration
    assert done is not None
    plan = estimate(RECIPE, cluster)
    assert plan.basis == str(done) and "calibrated on" in str(plan)
    seen = next(one for one in done.probes if (one.layers, one.hidden) == (6, 256))
    assert plan.step_seconds == pytest.approx(seen.predicted_seconds, rel=0.05), (
        "the planner says of the recipe what it says of the probe"
    )
    assert estimate(RECIPE, cluster.replace(name="")).basis != plan.basis, "another cluster has no part in it"


def test_what_was_measured_is_an_artefact_and_part_of_the_report(
    measured: tuple[Run, Cluster, Path], tmp_path: Path
) -> None:
    run, _, _ = measured
    assert json.loads(run.artefact_path("measured").read_text())["efficiency"]["calibration"]["probes"]
    page = export([run], tmp_path / "report.html").read_text()
    assert "calibrated on" in page


def test_constants_of_another_accelerator_are_not_used(
    measured: tuple[Run, Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cluster, home = measured
    monkeypatch.setenv("LAB_HOME", str(home))
    card = Cluster(accelerator="h100-sxm").accelerator
    changed = Profile.load("slurm-dev").replace(accelerator=card).cluster()
    assert changed.accelerator == card
    assert "published" in efficiency.of(changed).basis
    other = cluster.replace(accelerator=cluster.accelerator.replace(name="another CPU"))
    assert efficiency.of(other).calibration is None


def test_what_cannot_be_kept_says_why(measured: tuple[Run, Cluster, Path], home: Path, tmp_path: Path) -> None:
    run, _, _ = measured
    with pytest.raises(LabError, match="is a prepare run"):
        kept(Run.create(Prepare(), tmp_path))
    with pytest.raises(LabError, match="has measured nothing yet"):
        kept(Run.create(Calibrate(), tmp_path))
    order = run.order
    wrong = order.replace(profile=order.profile.replace(accelerator="h100-sxm"))
    try:
        wrong.save(run.path / "order.json")
        with pytest.raises(LabError, match=r"says accelerator='h100-sxm', and its node has"):
            kept(run)
    finally:
        order.save(run.path / "order.json")
    assert not list(home.glob("*-cluster.json"))


def test_it_measures_one_accelerator() -> None:
    with pytest.raises(LabError, match="the probe measures one"):
        Calibrate(parallelism=Parallelism(dp_shard=2))
