"""Near-duplicates as their definition reads: words and shingles as Python strings and sets, edits word by word."""

from __future__ import annotations

import functools
import random
import re
import unicodedata
from pathlib import Path

from lablib.data import corpus
from lablib.data.documents import Document

REPO = Path(__file__).resolve().parents[2]


def doc(text: str, domain: str = "d") -> Document:
    return Document(domain, "test", "none", text)


def write(folder: Path, documents: list[Document]) -> Path:
    """A corpus of these documents."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = corpus.Writer(folder)
    with writer:
        for one in documents:
            writer.add(one)
    writer.describe({one.domain: {"duplicates": 0, "short": 0} for one in documents})
    return folder


@functools.lru_cache(maxsize=5000)
def plain_words(text: str) -> list[str]:
    """The normaliser as its definition reads, a character at a time."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and "VARIATION SELECTOR" not in unicodedata.name(c, ""))  # fmt: skip
    spaced = re.sub(r"([\u3040-\u30ff\u4e00-\u9fff\u0e00-\u0e7f])", r" \1 ", text)
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in spaced).split()


def plain_set(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = plain_words(text)
    if len(words) < ngram:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)}


def plain_jaccard(one: str, other: str, ngram: int) -> float:
    a, b = plain_set(one, ngram), plain_set(other, ngram)
    return len(a & b) / len(a | b) if a and b else 0.0


def edited(text: str, rate: float, rng: random.Random) -> str:
    """Each word replaced with probability `rate` by one that is nowhere else."""
    return " ".join(f"new{rng.getrandbits(60)}" if rng.random() < rate else word for word in plain_words(text))


def family(seed: int, size: int) -> list[Document]:
    """Documents and copies at many rates of edits, so that similarities lie all over the scale."""
    rng = random.Random(seed)
    made = []
    for _ in range(size):
        text = " ".join(f"w{rng.randrange(3000)}" for _ in range(rng.randint(30, 120)))
        made += [
            text,
            *(edited(text, rng.choice([0.005, 0.01, 0.02, 0.03, 0.05]), rng) for _ in range(rng.randrange(4))),
        ]
    return [doc(text, rng.choice(["a", "b", "c"])) for text in dict.fromkeys(made)]


def repository() -> list[str]:
    """This repository's own sources and pages, those of a few hundred words."""
    files = sorted(path for part in ("lablib", "docs", "cluster") for path in (REPO / part).rglob("*") if path.suffix in (".py", ".md"))  # fmt: skip
    found = [path.read_text(encoding="utf-8") for path in files]
    return [text for text in found if 150 <= len(plain_words(text)) <= 3000]
