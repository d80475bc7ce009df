"""Decontamination: frozen indexes of benchmarks, a streaming search for their items, and the funnel's step that uses it."""

from lablib.data.contamination.detector import Detector, Match
from lablib.data.contamination.index import Index, build
from lablib.data.contamination.items import BenchmarkItem
from lablib.data.contamination.registry import Presence, presences
from lablib.data.contamination.report import PARAPHRASE, Coverage, Report, Row
from lablib.data.contamination.step import Decontamination, Library, search

__all__ = [
    "PARAPHRASE",
    "BenchmarkItem",
    "Coverage",
    "Decontamination",
    "Detector",
    "Index",
    "Library",
    "Match",
    "Presence",
    "Report",
    "Row",
    "build",
    "presences",
    "search",
]
