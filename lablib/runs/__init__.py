"""The run directory: the only truth about what was asked, predicted and measured. Readers need no server."""

from lablib.runs.artefacts import Artefact, fingerprint
from lablib.runs.recorder import Recorder, Stopped
from lablib.runs.run import Outcome, Run
from lablib.runs.state import GLYPHS, RunState

__all__ = ["GLYPHS", "Artefact", "Outcome", "Recorder", "Run", "RunState", "Stopped", "fingerprint"]
