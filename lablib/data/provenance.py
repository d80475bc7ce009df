"""Where a prepared folder's tokens come from: every document's row, and the synthetic share and depth of each domain."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import shards
from lablib.data.mixing.collapse import Caps, Origin, Verdict, guard
from lablib.data.selection import SPLITS


@dataclass(frozen=True)
class Share:
    """How much of a domain a model wrote."""

    tokens: int
    synthetic: float
    """Share of its tokens."""
    generation: int
    """The deepest of its documents."""


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each document of a prepared folder, as its shards' index has it: domain, split, source, licence, sha256, and
    those of url, time, synthetic and generation that are known. Raises `LabError` where it is no such folder."""
    for domain, split in _shards(folder):
        for row in _rows(folder, domain, split):
            yield {"domain": domain, "split": split, **row}


def origins(folder: Path) -> dict[str, Origin]:
    """Domain → tokens, synthetic share and generation of its documents, training ones first: what `guard` takes.

    Raises `LabError` where it is no prepared folder.
    """
    card = shards.manifest(folder)
    found: dict[str, list[Origin]] = {}
    for domain, split in _shards(folder):
        tokens = shards.read(folder, domain, split, card["tokenizer"]["vocab"]).lengths
        told = card["domains"][domain].get("provenance", {}).get("synthetic", 0)
        rows = list(_rows(folder, domain, split)) if told else [{}] * len(tokens)
        share = np.array([row.get("synthetic", 0.0) for row in rows], dtype=np.float64)
        depth = np.array([row.get("generation", 0) for row in rows], dtype=np.int64)
        found.setdefault(domain, []).append(Origin(tokens, share, depth))
    return {domain: joined(parts) for domain, parts in found.items()}


def joined(parts: list[Origin]) -> Origin:
    """Several origins as one, in their order."""
    arrays = ("tokens", "share", "depth")
    return Origin(*(np.concatenate([getattr(part, name) for part in parts]) for name in arrays))


def shares(folder: Path) -> dict[str, Share]:
    """Domain → how much of its tokens is synthetic, and the deepest generation."""
    return {
        domain: Share(int(one.tokens.sum()), one.synthetic, int(one.depth.max(initial=0)))
        for domain, one in origins(folder).items()
    }


def verdict(folder: Path, caps: Caps | None = None) -> Verdict:
    """What the guard against collapse would leave of a prepared folder, all its domains together."""
    return guard(joined(list(origins(folder).values())), caps or Caps())


def _shards(folder: Path) -> list[tuple[str, str]]:
    """(domain, split) of each shard."""
    made = [(row["domain"], row["split"]) for row in shards.manifest(folder)["shards"]]
    return sorted(made, key=lambda one: (one[0], SPLITS.index(one[1])))


def _rows(folder: Path, domain: str, split: str) -> Iterator[dict[str, Any]]:
    with gzip.open(Path(folder) / "shards" / f"{domain}.{split}.docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
