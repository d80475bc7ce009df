"""Content-addressed folders: built aside, moved into place in one step, so that they are whole or absent.

What befalls one later (a purge of old files, a power failure) is noticed by whoever asks for it, before anybody reads it: each
product has a list of its files' sizes, and one that differs is dropped, to be made again.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import socket
import tempfile
import time
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
"""In each product: its files' sizes in bytes by relative name. Its time is that of the last use."""
LEAVING = ".leaving.json"
"""Its name while a removal has the product in hand."""
LOOKS, POLL = 100, 0.05
"""Looks, and seconds between them, until the removal of a product counts as cut short."""


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
    if not (why := _damage(product)):
        (_USE.get() or Use()).asked.add((kind, key))
    elif product.is_dir():
        drop(kind, key, why)
    return not why


def _damage(product: Path) -> str:
    """Why a product is of no use, in words; empty for a whole one, whose list is stamped with now."""
    record = product / RECORD
    for _ in range(LOOKS):
        try:
            _stamp(record)
            return _difference(product, record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not product.is_dir():
                return "there is none"
            with suppress(FileNotFoundError):  # it is taken away meanwhile: look again
                if not (product / LEAVING).exists() and not record.exists():
                    _stamp(product)
                    return "" if any(file.is_file() for file in product.rglob("*")) else "it has no file"
        time.sleep(POLL)  # a removal has it in hand, and takes it away or puts it back
    return "its removal was cut short"


def _stamp(path: Path) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        raise
    except OSError:  # somebody else's, who may remove it
        pass


def _difference(product: Path, listed: str) -> str:
    """What of a product is not as its list says."""
    try:
        sizes = {product / name: int(size) for name, size in json.loads(listed).items()}
    except (ValueError, TypeError, AttributeError):
        return f"{RECORD} cannot be read"
    for file, size in sizes.items():
        try:
            found = file.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{file.relative_to(product)} is missing"
        if found != size:
            return f"{file.relative_to(product)} has {found:,} bytes of {size:,}"
    return ""


def used(product: Path) -> float:
    """When it was last found whole, as times of files tell; infinite for one that is gone."""
    for path in (product / RECORD, product / LEAVING, product):
        with suppress(OSError):
            return _time(path)
    return math.inf


def _time(path: Path) -> float:
    """Of the last change, as the file server has it: it is asked where a file is opened, else its client may know better."""
    opened = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(opened).st_mtime
    finally:
        os.close(opened)


def take(product: Path, last: float) -> Path | None:
    """The product moved aside, if its last use was that at `last`; None where it was used since, and where it is gone.

    Who has found it whole before keeps it: its list goes first, and comes back where that bears a later stamp.
    """
    with suppress(OSError):  # one that is gone, or somebody else's, stays where it is
        with suppress(FileNotFoundError):
            (product / RECORD).rename(product / LEAVING)
        if used(product) <= last:
            return moved(product)
    with suppress(OSError):
        (product / LEAVING).rename(product / RECORD)
    return None


def made(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of a product; `build` fills an empty one if it is not there, whole, yet.

    A build that raises, or whose process is killed, leaves no folder. Of two builders at once, the first one's result
    stays, and is the other's too where that one lost its inputs to the first one's tidying. Raises `LabError` where the
    disk is full.
    """
    final = folder(kind, key)
    if has(kind, key):
        return final
    with using():
        _built(final, build)
        has(kind, key)
    return final


def _built(final: Path, build: Callable[[Path], None]) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    work = _aside(final)
    work.mkdir()
    try:
        build(work)
        files = {str(file.relative_to(work)): file.stat().st_size for file in _files(work)}
        write_atomic(work / RECORD, json.dumps(files), durable=False)
        work.rename(final)
    except OSError as error:
        if not final.is_dir():
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LabError(
                    f"The disk of {paths.home()} is full; `lab data cache` shows what takes it, or move the cache with LAB_HOME"
                ) from None
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _files(product: Path) -> list[Path]:
    return sorted(file for file in product.rglob("*") if file.is_file() and file != product / RECORD)


def drop(kind: str, key: str, why: str = "") -> None:
    """Remove a product, at once whole; `why` says what is wrong with one that is damaged, and is told. Raises `LabError` for a
    damaged one that stays."""
    product = folder(kind, key)
    if why:
        (_USE.get() or Use()).hear(f"{product} is damaged ({why}); it is made again where it is needed")
    if use := _USE.get():
        use.asked.discard((kind, key))
    try:
        discard(moved(product))
    except FileNotFoundError:
        return
    except OSError:
        if why:
            raise LabError(f"{product} is damaged ({why}) and cannot be removed; have its owner remove it, or move the cache with LAB_HOME") from None  # fmt: skip


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
    shutil.copytree(source, work, ignore=shutil.ignore_patterns(RECORD, LEAVING))
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
