"""Quality: signals of each document first, thresholds later, so that a threshold moves without reading text again.

Toxicity is a list of words (`lablib.data.quality.profanity`), with a list's limits. Here documents stay whole or go; steps
that change text are `lablib.data.editing`'s.
"""

from lablib.data.quality.decide import Effect, Quality, Verdicts, reasons, verdicts
from lablib.data.quality.pii import PersonalData, scrub
from lablib.data.quality.table import measure, signals

__all__ = ["Effect", "PersonalData", "Quality", "Verdicts", "measure", "reasons", "scrub", "signals", "verdicts"]
