"""One progress bar over the phases of data preparation, and the place where a stop request is heeded."""

from __future__ import annotations

from pathlib import Path

from lablib.data.documents import Report
from lablib.runs import Recorder

PHASES = {
    "fetch": (0.0, 25.0),
    "read": (25.0, 38.0),
    "refine": (38.0, 42.0),
    "tokenizer": (42.0, 50.0),
    "tokenise": (50.0, 100.0),
}
"""Where each phase begins and ends in percent of the time, as measured on the core corpus (docs/data.md)."""
TYPICAL = 60_000_000
"""Characters that a corpus is taken to have while it is read and its real size is not known."""


class Progress:
    """Tells the run how far the whole is, in percent."""

    def __init__(self, run: Recorder) -> None:
        """Says nothing yet."""
        self._run, self._kept = run, 0

    def kept(self, path: Path) -> None:
        """Say that one more product lies in the cache, whoever made it: a next attempt finds it there."""
        self._kept += 1
        self._run.saved(self._kept, path)

    def at(self, phase: str, done: float, total: float) -> None:
        """`done` of `total` in a phase. Raises `Stopped` where the run was asked to stop."""
        self._run.heed()
        begin, end = PHASES[phase]
        part = min(1.0, done / total) if total else 1.0
        self._run.progress(round(begin + (end - begin) * part, 2), 100, unit="%")

    def reading(self, done: float, total: float) -> None:
        """A report of parts read so far, or of characters towards an end that is not known (0)."""
        self.at("read", done, total or TYPICAL)

    def part(self, phase: str, before: float, total: float) -> Report:
        """A report for one part of a phase, whose earlier parts came to `before`."""
        return lambda done, _: self.at(phase, before + done, total)
