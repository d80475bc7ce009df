"""Upkeep of the data cache: what is in it and for what, how large, when it was last used, and the removal of what nobody uses."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lablib.data import cache, presence
from lablib.specs import LabError, paths

NO_KINDS = frozenset({"claims", "users"})
"""Folders beside the products', of those who make and use them."""
EVERY = "all"


class Kind(NamedTuple):
    """What products are for."""

    says: str
    intermediate: bool = False
    """Whether they only save time on the way to a product of another kind, and are made again from those that are kept."""


KINDS: dict[str, Kind] = {
    "corpora": Kind("texts as they were read and after each step; hub sources are fetched again without them"),
    "shards": Kind("token shards; every run has a copy of its own"),
    "tokenizers": Kind("trained and copied tokenizers; every run has a copy of its own"),
    "signals": Kind("quality signals of each document, which the funnel's screen reads"),
    "decontamination": Kind("what was found of benchmarks in a corpus"),
    "tested": Kind("what came of running the tests that documents of code have"),
    "indexes": Kind("benchmarks' items, indexed to be looked for"),
    "classifiers": Kind("trained quality classifiers"),
    "written": Kind("completions that the tasks of a synthesize run share until it ends; a model writes them again"),
    "parts": Kind("parts of corpora, whose files are the corpora's", True),
    "sums": Kind("checksums of source files", True),
    "signatures": Kind("near-duplicates: signatures of each part", True),
    "verdicts": Kind("near-duplicates: which documents go", True),
    "looks": Kind("repeated text: what was seen of each part", True),
    "known": Kind("repeated text: what was gathered of all parts", True),
    "edits": Kind("what an edit makes of each document", True),
    "equal": Kind("documents that an edit made equal", True),
    "samples": Kind("text that tokenizers learned from", True),
    "encoders": Kind("which encoder is exact and fastest for a tokenizer", True),
    "pieces": Kind("token shards of each part", True),
    "scratch": Kind("working space of near-duplicate search; only what a killed one left", True),
}
"""Every kind of product; what a preparation begins with or ends with comes first."""
UNKNOWN = Kind("of another version of the lab")


@dataclass(frozen=True)
class Holding:
    """The products of one kind."""

    kind: str
    says: str
    intermediate: bool
    products: int
    bytes: int
    """Of files, each once, however many names it has."""
    own_bytes: int
    """Of files that no product of another kind shares by a hard link: what removing this kind alone frees."""
    used: float | None
    """Unix time of the last use of any; None without a product."""
    in_use: int
    """Products that somebody may be using now."""


@dataclass(frozen=True)
class Removed:
    """What a removal came to."""

    products: dict[str, int]
    """Removed, or to be removed, by kind."""
    bytes: int
    """Freed: of files that have no other name outside what was removed."""
    in_use: int
    """Products that stay because somebody may be using them now."""
    younger: int
    """Products that stay because they were used too lately."""


def held() -> list[Holding]:
    """What the cache holds, by kind; links lead out of it and are not counted."""
    begun, found = presence.oldest(), []
    for kind in _kinds_there():
        used = [time for product in _products(kind) if (time := cache.used(product)) < math.inf]
        size, own = _sizes(_folder(kind))
        about, in_use = KINDS.get(kind, UNKNOWN), sum(time >= begun for time in used)
        found.append(Holding(kind, about.says, about.intermediate, len(used), size, own, max(used, default=None), in_use))  # fmt: skip
    return found


def remove(kinds: Sequence[str] = (), older_than: float = 0.0, dry: bool = False) -> Removed:
    """Remove the products of some kinds, of the intermediate ones where none is named, of all `KINDS` for ``("all",)``; only
    those that were not used for `older_than` seconds, and none that somebody who is `cache.using` it has asked for. `dry` only
    counts.

    Each product leaves its place in one step. Links are left as they are, and so is whatever else lies there. Raises
    `LabError` for a kind that there is none of.
    """
    now, begun = presence.clock(), presence.oldest()
    gone, counts, in_use, younger = list[Path](), Counter[str](), 0, 0
    for kind in _wanted(kinds):
        for product in _products(kind):
            used = cache.used(product)
            if used >= begun:
                in_use += 1
            elif used >= now - older_than:
                younger += 1
            elif taken := product if dry else cache.take(product, used):
                gone.append(taken)
                counts[kind] += 1
            else:
                in_use += 1
        gone += [work for work in _work(kind) if _abandoned(work, min(now, begun))]
    freed = _sizes(*gone)[1]
    for product in () if dry else gone:
        cache.discard(product)
    return Removed(dict(counts), freed, in_use, younger)


def _abandoned(work: Path, before: float) -> bool:
    """Whether nobody goes on with a folder under way; its maker on another machine is, while it lives, a user."""
    lives = cache.lives(work)
    return cache.used(work) < before if lives is None else not lives


def _folder(kind: str) -> Path:
    return paths.home() / "data" / kind


def _kinds_there() -> list[str]:
    """Kinds that have a folder, in `KINDS`' order, then the unknown ones."""
    root = paths.home() / "data"
    there = {one.name for one in root.iterdir() if _own(one)} - NO_KINDS if root.is_dir() else set[str]()
    return [kind for kind in KINDS if kind in there] + sorted(there - KINDS.keys())


def _wanted(kinds: Sequence[str]) -> list[str]:
    there = _kinds_there()
    if unknown := sorted(set(kinds) - {*there, *KINDS, EVERY}):
        raise LabError(f"the cache has no kind {', '.join(unknown)}; it has {', '.join(there) or 'none yet'}, and {EVERY!r} takes every one")  # fmt: skip
    if EVERY in kinds:
        kinds = [*kinds, *KINDS]
    return [kind for kind in there if (kind in kinds if kinds else KINDS.get(kind, UNKNOWN).intermediate)]


def _own(path: Path) -> bool:
    """Whether it is a folder of the cache itself and no link, which leads out of it."""
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


def _products(kind: str) -> Iterator[Path]:
    return (product for product in sorted(_folder(kind).iterdir()) if _own(product))


def _work(kind: str) -> Iterator[Path]:
    """Folders of builders and removals, living and dead."""
    return (work for work in _folder(kind).glob(".*.*.*") if work.is_dir() and not work.is_symlink())


def _sizes(*folders: Path) -> tuple[int, int]:
    """(bytes of all files below, of those that have no name elsewhere); a file with several names counts once."""
    sizes, links, names = dict[tuple[int, int], int](), dict[tuple[int, int], int](), Counter[tuple[int, int]]()
    for folder in folders:
        for top, _, files in os.walk(folder):
            for name in files:
                with suppress(FileNotFoundError):
                    found = os.lstat(os.path.join(top, name))
                    at = found.st_dev, found.st_ino
                    sizes[at], links[at] = found.st_size, found.st_nlink
                    names[at] += 1
    return sum(sizes.values()), sum(size for at, size in sizes.items() if names[at] == links[at])
