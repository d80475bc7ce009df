"""`calibrate`: a node of a profile measures itself in a job, and plans for that profile then rest on it."""

from __future__ import annotations

from pathlib import Path

from cluster.submission import submit
from lablib.plan.calibrate import Measured, keep
from lablib.runs import Run, RunState
from lablib.specs import Calibrate, Cluster, LabError, Profile


def calibrate(profile: str | Profile, root: Path | None = None) -> Cluster:
    """Submit a `Calibrate` recipe, wait for it (minutes, and the queue), and keep what it measured.

    Raises `LabError` as `submit` and `kept` do. Where one would rather not wait: ``kept(run)`` of the submitted run.
    """
    run = submit(Calibrate(), profile, root=root)
    run.wait()
    return kept(run)


def kept(run: Run) -> Cluster:
    """Store what a calibrate run measured under its profile's name, and give the cluster that plans then price on.

    Raises `LabError` where the run has not completed, or its node is not what the profile says.
    """
    if run.recipe.stage != "calibrate":
        raise LabError(f"run {run.id} is a {run.recipe.stage} run; give one of `lab calibrate --profile NAME`")
    if run.state is not RunState.COMPLETED:
        raise LabError(
            f"run {run.id} is {run.state}, and has measured nothing yet: {run.failure or '`lab watch` follows it'}"
        )
    found, profile = Measured.load(run.artefact_path("measured")), run.order.profile
    said, seen = profile.accelerator, found.cluster.accelerator
    if said is not None and said.name != seen.name:
        raise LabError(
            f"profile {profile.name} says accelerator={said.name!r}, and its node has {seen.name!r}; correct the profile, then `lab calibrate --run {run.id}`"
        )
    keep(found, profile.name)
    return profile.cluster()
