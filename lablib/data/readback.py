"""A prepared folder's training documents as text again, from its own tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lablib.data import provenance, shards, tokenizer

Placed = tuple[int, dict[str, Any]]
"""A training document: its place in its domain's shard, and its row as `provenance.documents` has it."""


def training(data: Path) -> Iterator[Placed]:
    """Each training document; held-out ones stay out. Raises `LabError` where it is no prepared folder."""
    found: Counter[str] = Counter()
    for row in provenance.documents(data):
        if row["split"] == "train":
            yield found[row["domain"]], row
            found[row["domain"]] += 1


def require(data: Path, words: Path) -> None:
    """Raises `LabError` where the tokenizer `words` is not that of the data."""
    tokenizer.require(shards.manifest(data)["tokenizer"].get("hash"), words, f"data {data}")


def texts(data: Path, words: Path, chosen: Sequence[Placed], longest: int) -> list[str]:
    """The text of each, cut to `longest` tokens, read with the tokenizer folder `words`, which is the data's."""
    vocab = shards.manifest(data)["tokenizer"]["vocab"]
    opened = {domain: shards.read(data, domain, "train", vocab) for domain in {row["domain"] for _, row in chosen}}
    loaded, found = tokenizer.load(words), []
    for place, row in chosen:
        shard = opened[row["domain"]]
        start, length = int(shard.starts[place]), min(int(shard.lengths[place]) - 1, longest)
        found.append(loaded.decode(shard.tokens[start : start + length].tolist(), skip_special_tokens=True))
    return found
