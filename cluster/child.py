"""A short helper process that finishes what it began, also where Ctrl-C or a kernel's interrupt comes meanwhile."""

from __future__ import annotations

import subprocess
from typing import IO, Any


def finish(
    command: list[str], environment: dict[str, str], text: str = "", log: IO[bytes] | None = None
) -> tuple[int, str]:
    """Exit status, and what it said to stderr (to `log`, where given). An interrupt is raised once it has ended: a job that
    was queued must be written down."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE if text else subprocess.DEVNULL,
        stdout=log or subprocess.DEVNULL,
        stderr=log or subprocess.PIPE,
        start_new_session=True,
    )
    given: dict[str, Any] = {"input": text.encode() or None}
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            said = process.communicate(**given)[1]
            break
        except KeyboardInterrupt as error:
            interrupted, given = error, {}
    if interrupted is not None:
        raise interrupted
    return process.returncode, (said or b"").decode("utf-8", "replace")
