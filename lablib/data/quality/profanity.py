"""Profanity: which share of a document's words stand on a public list of words that are rated as profane or slurs.

The list is that of the npm package cuss, whose English words come from Luis von Ahn's list (Carnegie Mellon University)
and Wikipedia's list of ethnic slurs, each rated 0 to 2 for how sure it is; only the sure ones count. It is fetched, not
carried. A list is transparent and shallow: it knows English only, no sense and no speaker, finds no cruelty in polite
words, and takes out more of the text of and about minorities (Dodge et al. 2021, arXiv 2104.08758, on C4's). No labelled
text is at hand to measure its errors with, so no preset has a threshold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from lablib.data import packages
from lablib.data.documents import Document
from lablib.data.packages import Package
from lablib.data.quality.splitters import Floats, ratio, split
from lablib.specs import digest

CUSS = Package("cuss", "2.2.0", "cuss-2.2.0.tgz", "66b19c6086d3fb3eac3769daf97dd695290ecc24b0fddbc30688418c629b776f", 25_470, "MIT")  # fmt: skip
SURE = 2
"""The rating of words that are used as profanity and hardly otherwise."""
BATCH = 1024
"""Documents that are searched at once."""
_ENTRY = re.compile(r"^\s*(\w+): ([0-2]),?$", re.MULTILINE)
"""Phrases, which stand in quotation marks, are left out."""


@dataclass(frozen=True)
class Lexicon:
    """Words in lower case."""

    words: frozenset[str]

    @property
    def key(self) -> str:
        """Changes with the words."""
        return digest(sorted(self.words))

    def shares(self, texts: Sequence[str]) -> Floats:
        """Listed words over all words of each text, 0 to 1; a word is a run of letters and digits, in any case."""
        words = split(pl.Series(texts, dtype=pl.String), "words")
        return ratio(words.total(words.distinct.str.to_lowercase().is_in(self.words).to_numpy()), words.counts)


def lexicon() -> Lexicon:
    """The sure words of the list, fetched unless it is there. Raises `LabError` where it cannot be had."""
    ((_, data),) = packages.members(packages.fetch_npm(CUSS), r"package/index\.js$")
    return parsed(data.decode())


def parsed(source: str) -> Lexicon:
    """The sure words of a JavaScript map of words to ratings."""
    return Lexicon(frozenset(word.lower() for word, rating in _ENTRY.findall(source) if int(rating) >= SURE))


def with_profanity(table: pl.DataFrame, documents: Iterable[Document], listed: Lexicon) -> pl.DataFrame:
    """The table with a column ``profanity``, the share of listed words; null where a document is not among these."""
    frames = [pl.DataFrame(schema={"sha256": pl.String, "profanity": pl.Float64}), *_frames(documents, listed)]
    rest = table.drop("profanity", strict=False)
    return rest.join(pl.concat(frames).unique("sha256"), on="sha256", how="left", maintain_order="left")


def _frames(documents: Iterable[Document], listed: Lexicon) -> Iterator[pl.DataFrame]:
    stream = iter(documents)
    while some := list(islice(stream, BATCH)):
        yield pl.DataFrame(
            {"sha256": [one.sha256 for one in some], "profanity": listed.shares([one.text for one in some])}
        )
