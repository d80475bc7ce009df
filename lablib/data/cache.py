"""Content-addressed folders: built aside, moved into place in one step, so that they are whole or absent.

What befalls one later (a purge of old files, a power failure) is noticed by whoever asks for it, before anybody reads it: each
product has a list of its files' sizes, and one that differs is dropped, to be made again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from lablib.data import presence
from lablib.runs import heartbeat
from lablib.specs import LabError, paths, write_atomic

RECORD = ".files.json"
"""In each product: its files' sizes in bytes by relative name."""


def folder(kind: str, key: str) -> Path:
    """Where the product of `kind` with this content key belongs."""
    return paths.home() / "data" / kind / key


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


@dataclass
class Use:
    """Products that a user of the cache has asked for, and who hears of damaged ones."""

    hear: Callable[[str], None] = _warn
    asked: set[tuple[str, str]] = field(default_factory=set)

    def mend(self) -> bool:
        """Whether one was damaged or lost since it was asked for; such are dropped. What failed meanwhile is worth another try."""
        lost = {one for one in tuple(self.asked) if not has(*one)}
        self.asked -= lost
        return bool(lost)


_USE: ContextVar[Use | None] = ContextVar("use", default=None)


@contextmanager
def using(hear: Callable[[str], None] | None = None) -> Iterator[Use]:
    """Nothing that is asked for within the block is removed by `upkeep.remove` while it lasts. `hear` is told of damaged
    products; inside another such block, None adds nothing to that one."""
    outer = _USE.get()
    if outer is not None and hear is None:
        yield outer
        return
    use = Use(hear or _warn)
    token = _USE.set(use)
    try:
        with presence.here():
            yield use
    finally:
        _USE.reset(token)


def vouched() -> None:
    """Say that this process works for one that is `using` the cache, and needs no mark of its own."""
    _USE.set(Use())


def has(kind: str, key: str) -> bool:
    """Whether the product is there and whole; it counts as used now, for its removal. A damaged one is dropped, which is told.

    One without a list of its files, of an earlier version of the lab, is taken for whole if it has any. Raises `LabError` for a
    damaged one that cannot be dropped.
    """
    product = folder(kind, key)
    try:
        os.utime(product)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's
        pass
    if (why := _damage(product)) and product.is_dir():
        drop(kind, key, why)
        if product.is_dir():
            raise LabError(f"{product} is damaged ({why}) and cannot be removed; have its owner remove it, or move the cache with LAB_HOME")  # fmt: skip
    elif not why:
        (_USE.get() or Use()).asked.add((kind, key))
    return not why


def _damage(product: Path) -> str:
    """What is wrong with a product, in words; empty for a whole one."""
    try:
        sizes = json.loads((product / RECORD).read_text(encoding="utf-8"))
        for name, size in sizes.items():
            if (found := (product / name).stat().st_size) != size:
                return f"{name} has {found:,} bytes of {size:,}"
    except FileNotFoundError as error:
        lost = Path(error.filename)
        if lost.name != RECORD or lost.parent != product:
            return f"{lost.relative_to(product)} is missing"
        return "" if any(file.is_file() for file in product.rglob("*")) else "it has no file"
    except (NotADirectoryError, ValueError, AttributeError) as error:
        return f"its list of files cannot be read: {error}"
    return ""


def made(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of a product; `build` fills an empty one if it is not there, whole, yet.

    A build that raises, or whose process is killed, leaves no folder. Of two builders at once, the first one's result
    stays, and is the other's too where that one lost its inputs to the first one's tidying. Raises `LabError` where the
    disk is full.
    """
    final = folder(kind, key)
    if has(kind, key):
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    work = _aside(final)
    work.mkdir()
    try:
        with using():
            build(work)
        files = {str(file.relative_to(work)): file.stat().st_size for file in _files(work)}
        write_atomic(work / RECORD, json.dumps(files), durable=False)
        work.rename(final)
    except OSError as error:
        if not final.is_dir():
            if error.errno == errno.ENOSPC:
                raise LabError(
                    f"The disk of {paths.home()} is full; `lab data cache` shows what takes it, or move the cache with LAB_HOME"
                ) from None
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    has(kind, key)
    return final


def _files(product: Path) -> list[Path]:
    return sorted(file for file in product.rglob("*") if file.is_file() and file != product / RECORD)


def drop(kind: str, key: str, why: str = "") -> None:
    """Remove a product, at once whole; `why` says what is wrong with one that is damaged, and is told."""
    product = folder(kind, key)
    if why:
        (_USE.get() or Use()).hear(f"{product} is damaged ({why}); it is made again where it is needed")
    if use := _USE.get():
        use.asked.discard((kind, key))
    with suppress(OSError):
        discard(moved(product))


def moved(product: Path) -> Path:
    """The product under a name by which nobody finds it, and which is swept if this process is killed. Raises `OSError`."""
    aside = _aside(product, "-gone")
    product.rename(aside)
    return aside


def discard(path: Path) -> None:
    """Delete a folder; of a link the link alone."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _aside(product: Path, what: str = "") -> Path:
    """A free name beside a product that says whose it is."""
    work = product.with_name(f".{product.name}{what}.{socket.gethostname()}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    return work


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the cache's disk while the block lasts; what a killed process leaves of one is swept by the next."""
    parent = folder("scratch", "")
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    mine = f".{socket.gethostname()}.{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=".", suffix=mine, dir=parent) as made:
        yield Path(made)


def _sweep(parent: Path) -> None:
    """Remove what killed builders of this machine left."""
    for left in parent.glob(f".*.{socket.gethostname()}.*"):
        if lives(left) is False:
            shutil.rmtree(left, ignore_errors=True)


def lives(work: Path) -> bool | None:
    """Whether the process that made a folder aside still exists; None where it is not one of this machine."""
    ahead, _, pid = work.name.rpartition(".")
    if not ahead.endswith(f".{socket.gethostname()}") or not pid.isdigit():
        return None
    return heartbeat.exists(int(pid))


def put(source: Path, target: Path) -> None:
    """A copy of a cached folder in a run, atomically; files are copied, so that a run owns what it has."""
    work = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work, ignore=shutil.ignore_patterns(RECORD))
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
