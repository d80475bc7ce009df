"""Data preparation in parts: a part of a source is a source, a part of a corpus is a corpus, and workers share products.

Every product lies in the lab's cache under a name of what went into it (`lablib.data.cache`), so that finished parts
outlive a kill, and the number of workers decides only who makes which.
"""

from lablib.data.scale import corpora, pieces, sampling, steps
from lablib.data.scale.team import Job, Team

__all__ = ["Job", "Team", "corpora", "pieces", "sampling", "steps"]
