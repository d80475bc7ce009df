"""The calibrate stage: the node that a job gets measures itself, as `lab calibrate` measures this machine."""

from __future__ import annotations

from lablib.plan.calibrate import measure as measure_here
from lablib.runs import Recorder
from lablib.specs import Calibrate

FILE = "measured.json"


def measure(recipe: Calibrate, run: Recorder) -> None:
    """Write what was measured (`lablib.plan.calibrate.Measured`) and register it as the artefact "measured".

    Raises `LabError` where a probe fails.
    """
    found = measure_here()
    found.save(run.path / FILE)
    run.note(calibration=str(found.efficiency.basis))
    run.artefact("measured", run.path / FILE)
