"""Near-duplicates of documents and text that they share: shingles, signatures, exact verification, what theory promises."""

from lablib.data.dedup.near import NearDuplicates, near_duplicates
from lablib.data.dedup.repeats import RepeatedText

__all__ = ["NearDuplicates", "RepeatedText", "near_duplicates"]
