"""Quality: signals of each document first, thresholds later, so that a threshold moves without reading text again.

There is no toxicity column: the word lists that packages carry either say nothing of where they come from or are under a
licence of their own (LDNOOBW: CC BY 4.0), and none has measured errors. C4 also cuts lines out of the documents that it
keeps; here documents stay whole or go.
"""

from lablib.data.quality.decide import Effect, Quality, Verdicts, reasons, verdicts
from lablib.data.quality.pii import PersonalData, scrub
from lablib.data.quality.table import measure, signals

__all__ = ["Effect", "PersonalData", "Quality", "Verdicts", "measure", "reasons", "scrub", "signals", "verdicts"]
