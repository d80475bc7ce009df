"""Repetition of n-grams inside a document (Gopher, arXiv 2112.11446 table A1), counted as datatrove counts it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lablib.data.quality.splitters import Floats, Ints, Words, ratio

TOP = (2, 3, 4)
"""n of which the most frequent n-gram counts."""
DUPLICATE = (5, 6, 7, 8, 9, 10)
"""n of which every repeated n-gram counts."""


def repetition(words: Words, chars: Ints) -> dict[str, Floats]:
    """``top_<n>gram`` and ``duplicate_<n>gram`` of each text, as shares of its `chars`.

    An n-gram can only repeat where its first n - 1 words do, so each length looks only at places that the shorter one
    left. n-grams are compared by number, word after word, never by a hash of the whole.
    """
    signals: dict[str, Floats] = {}
    kinds = len(words.distinct)
    edges = np.concatenate([[0], np.cumsum(words.length)])
    ends = np.cumsum(words.counts)[words.document]
    at, gram = np.arange(len(words.code)), words.document
    for n in range(1, DUPLICATE[-1] + 1):
        fits = at + n <= ends[at]
        at = at[fits]
        gram = pd.factorize(gram[fits] * kinds + words.code[at + n - 1])[0]
        repeats = np.bincount(gram) > 1
        again = repeats[gram]
        at, gram = at[again], (np.cumsum(repeats) - 1)[gram[again]]
        if n in TOP:
            signals[f"top_{n}gram"] = np.minimum(1, ratio(_top(words, edges, at, gram, n), chars))
        if n in DUPLICATE:
            hits = np.array(_hits(at, gram, n), np.int64)
            covered = np.bincount(words.document[hits], edges[hits + n] - edges[hits], minlength=words.documents)
            signals[f"duplicate_{n}gram"] = ratio(covered, chars)
    return signals


def _top(words: Words, edges: Ints, at: Ints, gram: Ints, n: int) -> Floats:
    """Characters of each text's most frequent n-gram, joined by spaces, times its count; of equal counts the first."""
    starts = np.cumsum(words.counts) - words.counts
    long = words.counts >= n
    total = np.zeros(words.documents)
    total[long] = edges[starts[long] + n] - edges[starts[long]] + n - 1
    if len(at):
        first, count = at[_firsts(gram)], np.bincount(gram)
        owner = words.document[first]
        best = np.zeros(words.documents, np.int64)
        np.maximum.at(best, owner, count)
        most = np.flatnonzero(count == best[owner])
        owners, one = np.unique(owner[most], return_index=True)
        chosen = most[one]
        total[owners] = (edges[first[chosen] + n] - edges[first[chosen]] + n - 1) * count[chosen]
    return total


def _firsts(gram: Ints) -> Ints:
    """Index of each number's first occurrence; numbers are given in order of appearance."""
    first = np.empty(int(gram.max(initial=-1)) + 1, np.int64)
    first[gram[::-1]] = np.arange(len(gram))[::-1]
    return first


def _hits(at: Ints, gram: Ints, n: int) -> list[int]:
    """Places whose n-gram was met before, read from the left; a hit is passed over whole, so that no character counts
    twice, and n-grams that begin inside it count as never met."""
    first = _firsts(gram)
    later = np.ones(len(at), bool)
    later[first] = False
    places, names = at[later], gram[later]
    after = np.searchsorted(places, places + n)
    inside = bytearray(int(at.max(initial=0)) + n)
    cover = b"\1" * (n - 1)
    origins = at[first][names]
    return _read(places.data, names.data, origins.data, after.data, inside, cover, len(first))


def _read(
    places: memoryview,
    names: memoryview,
    origins: memoryview,
    after: memoryview,
    inside: bytearray,
    cover: bytes,
    kinds: int,
) -> list[int]:
    """The walk of `_hits` over places whose n-gram stands elsewhere to the left, first at its origin. Only the places that
    are stopped at cost anything: `after` is the index of the next one behind a hit."""
    index, end, covered = 0, len(places), len(cover) + 1
    met = bytearray(kinds)
    hits: list[int] = []
    while index < end:
        if inside[origins[index]] and not met[names[index]]:
            met[names[index]] = 1
            index += 1
        else:
            place = places[index]
            hits.append(place)
            inside[place + 1 : place + covered] = cover
            index = after[index]
    return hits
