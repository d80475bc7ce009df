"""A run record's planned quantities as spans again."""

from __future__ import annotations

from lablib.explorers.planned import Planned, Span
from lablib.report.record import RunRecord


def planned(run: RunRecord) -> Planned:
    """What was registered before the run; fields are None where nothing was."""
    return Planned(**{name: None if value is None else Span(**value) for name, value in run["planned"].items()})
