"""Near-duplicates of documents and repeated lines: shingles, signatures, exact verification, and what theory promises."""

from lablib.data.dedup.near import NearDuplicates, near_duplicates
from lablib.data.dedup.repeats import RepeatedLines, Repeats, Stripped

__all__ = ["NearDuplicates", "RepeatedLines", "Repeats", "Stripped", "near_duplicates"]
