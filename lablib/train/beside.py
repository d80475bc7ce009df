"""One piece of work at a time beside the training loop, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Beside:
    """Runs work in the background; what it raises is raised where it is waited for."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Start `work`, after waiting for what was started before. Raises what that raised."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        # A process whose other ranks are gone must be able to end: its thread may wait for them for ever.
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Return when the work is done (or after `seconds`). Raises what it raised."""
        if self._thread is not None:
            self._thread.join(seconds)
            if not self._thread.is_alive():
                self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
