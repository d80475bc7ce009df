"""The run directory: the only truth about what was asked, predicted and measured. Readers need no server."""

from lablib.runs.artefacts import Artefact, fingerprint
from lablib.runs.recorder import Recorder
from lablib.runs.run import Outcome, Run, RunState

__all__ = ["Artefact", "Outcome", "Recorder", "Run", "RunState", "fingerprint"]
