"""Who uses the cache now: a mark of each user, kept fresh while its block lasts, so that a removal spares what is in use.

Times of files are compared, which one file server gives; clocks of two machines never are.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from lablib.runs import heartbeat
from lablib.runs.heartbeat import Pulse
from lablib.specs import paths, write_atomic

SILENT = 600.0
"""Seconds without a sign of life after which a user on another machine counts as gone; signs come every `heartbeat.INTERVAL`."""
SLACK = 2.0
"""Seconds by which two times of one file server may differ from the order of what happened."""


def folder() -> Path:
    """Where the marks lie."""
    return paths.home() / "data" / "users"


@contextmanager
def here() -> Iterator[None]:
    """This process uses the cache while the block lasts. A place that cannot be written to has no mark: nothing can be
    removed from there either."""
    file, pulse = folder() / f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}.json", Pulse.mine(0, "user")
    ended, since = threading.Event(), 0.0
    with suppress(OSError):
        _write(file, pulse, since)
        since = file.stat().st_mtime
        _write(file, pulse, since)
    beating = threading.Thread(target=_live, args=(file, pulse, since, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _live(file: Path, pulse: Pulse, since: float, ended: threading.Event) -> None:
    while not ended.wait(heartbeat.INTERVAL):
        pulse = replace(pulse, beat=pulse.beat + 1)
        with suppress(OSError):
            _write(file, pulse, since)


def _write(file: Path, pulse: Pulse, since: float) -> None:
    write_atomic(file, json.dumps({"since": since, "pulse": asdict(pulse)}), durable=False)


def oldest() -> float:
    """Since when there has been a user without a gap, as times of files tell: what was used since then may be in use.
    Infinite where there is none now."""
    now, begun = clock(), float("inf")
    for file in folder().glob("[!.]*.json"):
        try:
            text, seen = file.read_text(encoding="utf-8"), file.stat().st_mtime
        except FileNotFoundError:
            continue
        gone, since = now - seen > SILENT, 0.0
        with suppress(ValueError, TypeError, LookupError):  # of another version of the lab
            told = json.loads(text)
            pulse, since = Pulse(**told["pulse"]), float(told["since"])
            gone = not heartbeat.alive(pulse) if heartbeat.same_machine(pulse) else gone
        if gone:
            file.unlink(missing_ok=True)
        else:
            begun = min(begun, since - SLACK)
    return begun


def clock() -> float:
    """The time by which the cache's files are stamped."""
    probe = folder() / f".clock.{secrets.token_hex(4)}"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
