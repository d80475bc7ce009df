"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_gib() -> float:
    """Most memory of this process that was resident at once, in GiB.

    Linux's VmHWM, for ru_maxrss begins at the peak of the process that started this one (fs/exec.c keeps it over execve);
    ru_maxrss elsewhere, which macOS counts in bytes and others in KiB.
    """
    try:
        text = _STATUS.read_text(encoding="ascii")
        return int(text.partition("VmHWM:")[2].split(maxsplit=1)[0]) / 2**20
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)
