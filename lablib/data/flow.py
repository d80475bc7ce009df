"""Documents, bytes and tokens through each step, from the manifest of prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lablib.data import card as cards
from lablib.data.funnel import Count, totals


@dataclass(frozen=True)
class Flow:
    """One step."""

    step: str
    count: Count
    tokens_in: float
    tokens_out: float
    """Of the last step, counted; of those before it, bytes of each domain times the tokens a byte of its shards. Text that
    was dropped may tokenise worse than what stayed, which often is why it was dropped: then this is too low."""

    @property
    def kept(self) -> float:
        """Share of the documents that stay, 0 where none came."""
        return self.count.docs_out / self.count.docs_in if self.count.docs_in else 0.0


def flow(manifest: Mapping[str, Any]) -> list[Flow]:
    """Reading, the steps of the funnel, and tokenising, where a cap (``max_bytes``) may leave documents out."""
    shards = manifest["shards"]
    rates = tokens_per_byte(shards)
    rows = cards.steps(dict(manifest))
    made = [
        Flow(row["step"], totals(row), *(_tokens(row, rates, end) for end in ("bytes_in", "bytes_out"))) for row in rows
    ]
    docs, size, tokens = (sum(shard[name] for shard in shards) for name in ("docs", "bytes", "tokens"))
    last = made[-1].count
    over = {"over max_bytes": last.docs_out - docs} if last.docs_out > docs else {}
    done = Count(last.docs_out, docs, last.bytes_out, size, over)
    return [*made, Flow("tokenised", done, made[-1].tokens_out, tokens)]


def tokens_per_byte(shards: list[Mapping[str, Any]]) -> dict[str, float]:
    """By domain, separators included, and over all under the empty name; for a domain without shards, the latter holds."""
    sums: dict[str, list[int]] = {}
    for shard in shards:
        for name in (shard["domain"], ""):
            told = sums.setdefault(name, [0, 0])
            told[0], told[1] = told[0] + shard["tokens"], told[1] + shard["bytes"]
    return {name: tokens / size for name, (tokens, size) in sums.items() if size}


def _tokens(row: Mapping[str, Any], rates: Mapping[str, float], end: str) -> float:
    return sum(one[end] * rates.get(name, rates.get("", 0.0)) for name, one in row["domains"].items())
