"""Content-addressed folders: built aside, moved into place in one step, so that they are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from lablib.runs import heartbeat
from lablib.specs import LabError, paths


def folder(kind: str, key: str) -> Path:
    """Where the product of `kind` with this content key belongs."""
    return paths.home() / "data" / kind / key


def made(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of a product; `build` fills an empty one if it is not there yet.

    A build that raises, or whose process is killed, leaves no folder. Of two builders at once, the first one's result
    stays, and is the other's too where that one lost its inputs to the first one's tidying. Raises `LabError` where the
    disk is full.
    """
    final = folder(kind, key)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    work = final.parent / f".{key}.{socket.gethostname()}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        try:
            build(work)
            work.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LabError(
                f"The disk of {paths.home()} is full; free some space, or move the cache with LAB_HOME"
            ) from None
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def drop(kind: str, key: str) -> None:
    """Remove a product whose content turned out to be damaged."""
    shutil.rmtree(folder(kind, key), ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed builders of this machine left."""
    for left in parent.glob(f".*.{socket.gethostname()}.*"):
        pid = left.name.rpartition(".")[2]
        if pid.isdigit() and not heartbeat.exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def put(source: Path, target: Path) -> None:
    """A copy of a cached folder in a run, atomically; files are copied, so that a run owns what it has."""
    work = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
