"""Signals of a job's process, from its first moment to its last.

A rank is told to save by SIGUSR2 (its time is up) and by SIGTERM or SIGINT. A signal that comes before the work begins is
remembered as a stop request; one that comes after its end has nothing left to stop. `catch` is for a process that is
a rank and nothing else: it holds the signals for good, so that the handlers of a library (submitit's requeue the job) never
come back between the work and the process's end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WANTED = {signal.SIGTERM: "signal", signal.SIGINT: "signal", signal.SIGUSR2: "limit"}
"""Each signal with what it says of the reason: somebody wants the process gone, or its time is up."""


class _Desk:
    """Where this process's signals arrive."""

    holds = False
    """Whether they are caught until the process ends."""
    over = False
    early = ""
    """Why, of the first one that came before anybody listened."""
    listener: Callable[[str], None] | None = None

    def heard(self, number: int, _: FrameType | None) -> None:
        """The one handler."""
        why = WANTED[signal.Signals(number)]
        if self.listener is not None:
            self.listener(why)
        elif not self.over:
            self.early = self.early or why


_desk = _Desk()


def catch() -> None:
    """Catch the process's signals from now to its end, whoever caught them until now; may be called again.

    Does nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is threading.main_thread():
        _desk.holds = True
        for number in WANTED:
            signal.signal(number, _desk.heard)


@contextmanager
def told_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Tell `listener` of each signal with its reason, an early one first. At the end earlier handlers come back, unless
    `catch` holds the signals: then later ones are ignored."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _desk.heard) for number in WANTED} if main else {}
    early, _desk.early = _desk.early, ""
    _desk.listener, _desk.over = listener, False
    if early:
        listener(early)
    try:
        yield
    finally:
        _desk.listener, _desk.over = None, True
        for number, handler in before.items() if not _desk.holds else ():
            signal.signal(number, handler)
