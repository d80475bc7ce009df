"""How much text the corpora of a recipe hold, as far as names and sizes of files tell: what preparing them reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path, PurePath
from typing import NamedTuple

from lablib.plan.data_rates import PAGES
from lablib.plan.synthesizing import written_bytes
from lablib.specs import Prepare, Ref, Synthesize, parse_recipe
from lablib.specs.paths import matched, rooted, runs_root
from lablib.specs.units import show_count

CORE_BYTES = 59_000_000
"""Raw text of the ``core`` corpus (58,963,197 bytes, docs/data.md)."""
HUB_BYTES = 1_000_000_000
"""Taken of a corpus whose size nobody knows before it is read."""
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
UNPACKED = 2.7
"""Bytes of text over those of its compressed file: enwik8 as zip, 100,000,000 over 36,445,475; as bzip2 3.4
(mattmahoney.net/dc/textdata.html)."""
UNPACKED_PAGES = 4.6
"""The same of a web archive: Common Crawl's of December 2023, 454 TiB (its announcement) over 90,000 files (not verified) of
1.21 GB; 75 TB an archive (arXiv 2404.09770) over August 2021's 360 TiB gives 5.3."""


class Held(NamedTuple):
    """What is in corpora, in bytes."""

    text: float
    pages: float = 0.0
    """Of web pages, from which some of the text has to be extracted."""
    assumed: tuple[str, ...] = ()
    """What nobody can know beforehand, to be shown."""


def held(recipe: Prepare, root: Path | None = None) -> Held:
    """What the recipe reads, its text up to `max_bytes`; what another run writes is looked up in `root`, the folder of runs."""
    found = [(corpus, _held(corpus, root)) for corpus in recipe.corpora]
    text, pages = sum(one.text for _, one in found if one), sum(one.pages for _, one in found if one)
    unknown, cap = [str(corpus) for corpus, one in found if one is None], recipe.max_bytes
    assumed = []
    if pages:
        assumed.append(f"web archives are taken to hold {show_count(pages)}B of pages with {show_count(pages * PAGES.mid)}B of text")  # fmt: skip
    if unknown and not cap:
        each = "" if len(unknown) == 1 else " each"
        assumed.append(
            f"corpus {', '.join(unknown)} is taken as 1 GB of text{each}; give max_bytes for a real estimate"
        )
    text += HUB_BYTES * len(unknown)
    return Held(min(text, cap) if cap else text, pages, tuple(assumed))


def share(recipe: Prepare, domains: Collection[str]) -> float:
    """Of the bytes of the recipe's files, those in folders that are named as these domains; 1 where a corpus has no files
    here, or no folder has such a name."""
    sizes: Counter[bool] = Counter()
    for corpus in recipe.corpora:
        files = matched(corpus) if isinstance(corpus, str) else []
        if not files:
            return 1.0
        root = rooted(str(corpus))[0]
        for file in files:
            sizes[len(parts := file.relative_to(root).parts) > 1 and parts[0] in domains] += file.stat().st_size
    return sizes[True] / sizes.total() if sizes[True] else 1.0


def _held(corpus: Ref | str, root: Path | None) -> Held | None:
    if isinstance(corpus, Ref):
        file = (root or runs_root()) / corpus.run / "recipe.json"
        writer = parse_recipe(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
        return Held(written_bytes(writer)) if isinstance(writer, Synthesize) else None
    if corpus == "core":
        return Held(CORE_BYTES)
    files = [_file(file) for file in matched(corpus)]
    return Held(sum(one.text for one in files), sum(one.pages for one in files)) if files else None


def _file(path: Path) -> Held:
    """Of one file, by its ending and size."""
    size, name = path.stat().st_size, PurePath(path.name.lower())
    packed = name.suffix in COMPRESSED
    if (name.with_suffix("") if packed else name).suffix != ".warc":
        return Held(size * (UNPACKED if packed else 1))
    pages = size * (UNPACKED_PAGES if packed else 1)
    return Held(pages * PAGES.mid, pages)
