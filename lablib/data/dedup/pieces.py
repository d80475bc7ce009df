"""Texts cut into lines, sentences or words with the white space behind them, and laid out as the words of the pieces."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import PIECE, Hashes, Ints, normalised, words_of

LINE, STOP, BLANK, WIDE, SPACE = 1, 2, 4, 8, 16
"""Characters that end a line, end a sentence where a blank follows, are that blank, end one alone, are white space."""
_KINDS = {LINE: "\n", STOP: ".!?", BLANK: " \t", WIDE: "。！？"}
_LAST = ord("！") + 0x20
"""A code point behind all that have a kind (``？`` is the last) and that has none itself."""


@dataclass(frozen=True)
class Laid:
    """The words of the pieces of several texts."""

    words: Hashes
    offsets: Ints
    """Piece i has ``words[offsets[i] : offsets[i + 1]]``."""
    texts: Ints
    """The number of the text that each piece is of."""


def ends(text: str, unit: str) -> Ints:
    """Where the pieces of a text end, the last one with the text; every character belongs to exactly one.

    A line ends with its line end; a ``sentence`` (and the sentences of a ``span``) there too, at ``.``, ``!`` or ``?``
    before a blank, and at their wide forms; a ``passage``'s word with the white space behind it.
    """
    plain = text.isascii()
    codes = np.frombuffer(
        text.encode("ascii" if plain else "utf-32-le", "surrogatepass"), np.uint8 if plain else np.uint32
    )
    kinds = _kinds()[codes if plain else np.minimum(codes, _LAST)]
    if unit == "line":
        cut = kinds & LINE > 0
    elif unit == "passage":
        cut = kinds & SPACE > 0
        cut[:-1] &= ~cut[1:]
    else:
        cut = kinds & (LINE | WIDE) > 0
        cut[:-1] |= (kinds[:-1] & STOP > 0) & (kinds[1:] & BLANK > 0)
    cut[-1:] = True
    return np.flatnonzero(cut) + 1


def cut(text: str, places: Ints) -> list[str]:
    """The pieces that end at these places."""
    return [text[begin:end] for begin, end in pairwise([0, *places.tolist()])]


def lay_out(texts: Sequence[str], places: Sequence[Ints]) -> Laid:
    """The words of texts whose pieces end at these `places`."""
    laid, counts, limits, owners = [], [], [], []
    for number, (text, at) in enumerate(zip(texts, places, strict=True)):
        for normal, where in _normal(text, at):
            laid.append(normal)
            limits.append(where)
            counts.append(len(normal) + 1)
        owners.append(np.full(len(at), number))
    words = words_of(laid)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    bounds = np.concatenate(
        [np.zeros(0, np.int64), *(where + base for where, base in zip(limits, before, strict=False))]
    )
    offsets = np.searchsorted(words.starts + before[words.texts], bounds)
    every = np.concatenate([np.zeros(0, np.int64), *owners])
    return Laid(words.hashes, np.concatenate([np.zeros(1, np.int64), offsets]), every)


def _normal(text: str, at: Ints) -> list[tuple[str, Ints]]:
    """A text normalised, and where its pieces end there. What has no white space for longer than words are hashed in one
    go goes piece by piece, so that where it stands in the text does not decide where it is cut."""
    if text.isascii():
        made = normalised(text), at
    elif len(at) == 1:
        made = (whole := normalised(text)), np.array([len(whole)])
    else:
        pieces = [normalised(piece) for piece in cut(text, at)]
        made = "".join(pieces), np.cumsum([len(piece) for piece in pieces])
    if len(made[0]) < PIECE or len(at) == 1 or not _unbroken(made[0]):
        return [made]
    return [(piece, np.array([len(piece)])) for piece in cut(*made)]


def _unbroken(text: str) -> bool:
    return max(map(len, text.replace("\n", " ").split(" "))) >= PIECE - 1


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """The kinds of each code point up to `_LAST`."""
    table = np.array([SPACE * chr(code).isspace() for code in range(_LAST + 1)], np.uint8)
    for kind, characters in _KINDS.items():
        table[[ord(one) for one in characters]] |= kind
    return table
