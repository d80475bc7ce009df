"""Python's garbage collector under control: a collection that strikes one rank in the middle of a step holds all of them up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_by_hand() -> Iterator[None]:
    """Collect, leave what is alive now out of later collections, and collect no more by itself until the end (torchtitan's
    and nanochat's way). The collector is then as it was before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def collect_young() -> None:
    """Collect what the last steps made, on all ranks at the same steps: the two young generations take microseconds."""
    gc.collect(1)


def collect_all() -> None:
    """Collect everything that is not frozen, at a moment that is slow anyway."""
    gc.collect()
