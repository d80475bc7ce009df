"""One thread a process that keeps live screens up to date, whatever the notebook's cells are doing.

A thread is the only one of the ways tried (thread, asyncio task, marimo's thread, file watch and refresh) that goes on
moving in both JupyterLab and marimo while a cell is busy.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Protocol

EVERY = 1.0
"""Seconds between looks; looks that take long are spaced so that they take a tenth of the time at most."""


class Live(Protocol):
    """Something that can be refreshed."""

    def refresh(self) -> bool:
        """Look again; False once nothing can change any more."""
        ...


class Poller:
    """Refreshes what is watched, and ends when nothing is left; watching holds no reference, so a dropped board dies."""

    def __init__(self, every: float = EVERY) -> None:
        """Starts no thread before something is watched."""
        self._every = every
        self._watched: weakref.WeakSet[Live] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, live: Live) -> None:
        """Refresh `live` from now on."""
        with self._lock:
            self._watched.add(live)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="lab-watch", daemon=True)
                self._thread.start()

    def drop(self, live: Live) -> None:
        """Stop refreshing `live`."""
        with self._lock:
            self._watched.discard(live)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def _work(self) -> None:
        pause, took = threading.Event(), 0.0
        while True:
            pause.wait(max(self._every, 9 * took))
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._thread = None
                    return
            begun = time.monotonic()
            while watched:
                self._look(watched.pop())
            took = time.monotonic() - begun

    def _look(self, live: Live) -> None:
        """One screen's trouble is logged and must not stop the others; it is looked at again."""
        try:
            if not live.refresh():
                self.drop(live)
        except Exception:
            logging.getLogger(__name__).warning("a live screen could not be refreshed", exc_info=True)
