"""How many tokens text takes: bytes a token and tokens a word, by text and vocabulary size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lablib.data import shards
from lablib.data.tokenizer.encoding import encode
from lablib.data.tokenizer.folder import load, require
from lablib.data.tokenizer.training import truncated

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SIZES = tuple(2**power for power in range(10, 18))
"""Vocabularies that a trained one is cut to: 1,024 to 131,072."""
SCRIPTS_WITHOUT_SPACES = frozenset({"Chinese", "Japanese", "Thai"})
"""Languages whose words are not separated, so that tokens a word say nothing."""


@dataclass(frozen=True)
class Fertility:
    """What one tokenizer makes of one text."""

    tokenizer: str
    vocab: int
    text: str
    """Domain or language."""
    bytes: int
    """Of UTF-8."""
    words: int
    """Runs between white space."""
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """More is shorter sequences."""
        return self.bytes / self.tokens

    @property
    def tokens_per_word(self) -> float | None:
        """None where words are not separated by spaces."""
        return None if self.text in SCRIPTS_WITHOUT_SPACES else self.tokens / self.words


def measure(name: str, tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> list[Fertility]:
    """One row for each text that is not empty. A text is a list of documents, without separators."""
    found = []
    for title, documents in texts.items():
        tokens = sum(len(ids) for ids in encode(tokenizer, documents))
        if tokens:
            size, words = sum(len(t.encode()) for t in documents), sum(len(t.split()) for t in documents)
            found.append(Fertility(name, tokenizer.get_vocab_size(), title, size, words, tokens))
    return found


def by_size(
    name: str, tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], sizes: Iterable[int] = SIZES
) -> list[Fertility]:
    """A BPE tokenizer at its own size and at each smaller one of `sizes`, as training at that size would give.

    Raises `LabError` for another algorithm.
    """
    size = tokenizer.get_vocab_size()
    smaller = [truncated(tokenizer, vocab) for vocab in sizes if vocab < size]
    return [row for one in (*smaller, tokenizer) for row in measure(name, one, texts)]


def heldout(data: Path, words: Path, most: int = 300_000) -> dict[str, list[str]]:
    """Domain → held-out documents of a Prepare run, about `most` bytes of each. Raises `LabError`."""
    card, tokenizer = shards.manifest(data), load(words)
    require(card["tokenizer"].get("hash"), words, f"data {data}")
    domains = [row["domain"] for row in card["shards"] if row["split"] == "heldout" and row["docs"]]
    found = {}
    for domain in domains:
        read = shards.read(data, domain, "heldout", card["tokenizer"]["vocab"])
        found[domain] = list(_up_to(_texts(read, tokenizer), most))
    return found


def _texts(read: shards.ShardData, tokenizer: Tokenizer) -> Iterator[str]:
    for start, length in zip(read.starts.tolist(), read.lengths.tolist(), strict=True):
        yield tokenizer.decode(read.tokens[start : start + length - 1].tolist(), skip_special_tokens=False)


def _up_to(texts: Iterator[str], most: int) -> Iterator[str]:
    for text in texts:
        yield text
        most -= len(text.encode())
        if most <= 0:
            return
