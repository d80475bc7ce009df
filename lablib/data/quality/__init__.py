"""Quality: signals of each document first, thresholds later, so that a threshold moves without reading text again."""

from lablib.data.quality.decide import Effect, Quality, Verdicts, reasons, verdicts
from lablib.data.quality.pii import scrub
from lablib.data.quality.table import measure, signals

__all__ = ["Effect", "Quality", "Verdicts", "measure", "reasons", "scrub", "signals", "verdicts"]
