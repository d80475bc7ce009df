"""`Detector`: which benchmark items a text holds.

Many documents at a time are hashed and looked up in NumPy; rare n-grams propose (document, item) pairs, and only such a
pair's words are aligned (`alignment`). Memory is that of the indexes and of one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.contamination import grams
from lablib.data.contamination.alignment import Aligned, Words, aligned
from lablib.data.contamination.index import COMMON, LEAST_EVIDENCE, Index
from lablib.data.dedup.shingles import Batch, Hashes
from lablib.specs.contamination import Decontaminate

BATCH = 1 << 18
"""Characters that are hashed at a time."""
LONGEST = 1 << 20
"""Characters; a longer document is searched in pieces, which overlap."""
OVERLAP = 1 << 15
"""Characters, several times a long item."""
FEW, MANY = 4.0, 16.0
"""Evidence (n-grams, weighted) at and below which the threshold is ``short_threshold``, and from which ``threshold``."""
STRETCH, SLACK = 1.5, 8
"""A passage that holds an item has at most `STRETCH` times its words and `SLACK` more."""
ANSWER_REACH = 16
"""Words after a question within which its answer confirms it."""
NEAR, NEAR_LEAST = 0.1, 0.75
"""Share and sum of the weights of an item's rare n-grams in a document from which a passage is looked for."""
SHARED = 0.2
"""Share of all its n-grams in a document from which an item is aligned that does not reach its threshold; a copy with every
fifth word changed keeps .51 on average, and .34 and more in 99 of 100 questions that settings were chosen with."""
CLOSEST, PLACE = 16, 64
"""Items that are aligned where many share a passage, the likest first, for each so many words of a document."""
LEAST_WORDS = 0.6
"""Share of an item's words that an edited copy keeps in order."""
SURE = 0.99
"""Share of an item's n-grams that must be there where the answer has to confirm it."""

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Match(NamedTuple):
    """An item found in a text."""

    benchmark: str
    item: str
    score: float
    """Share by weight that one passage holds of the item's n-grams, or of its words in order, whichever is more."""
    begin: int
    """First word of the passage, counted in the document."""
    end: int
    """One past its last word."""


@dataclass(frozen=True)
class _Hits:
    """Places in one document where an indexed n-gram stands, in order."""

    at: Ints
    gram: Ints


class Detector:
    """Searches texts for the items of several indexes of one method."""

    def __init__(self, indexes: Sequence[Index], spec: Decontaminate | None = None) -> None:
        self.spec = spec = spec or Decontaminate()
        self._items = [(index.name, item) for index in indexes for item in index.ids]
        self._merge(indexes)
        evidence = self._join(indexes, "evidence", np.float32)
        fall = np.clip((evidence - FEW) / (MANY - FEW), 0, 1)
        self._weak = evidence < LEAST_EVIDENCE
        least = spec.short_threshold + (spec.threshold - spec.short_threshold) * fall
        self._least = np.where(self._weak, SURE, least) if spec.method == "coverage" else np.full(len(evidence), 1e-6)
        self._evidence = np.maximum(evidence, 1e-9)
        self._span = (STRETCH * self._join(indexes, "words", np.int64)).astype(np.int64) + SLACK
        self._bound = self._least * self._evidence - self._common - 1e-4
        if spec.method == "coverage":
            self._bound = np.minimum(self._bound, np.maximum(NEAR * self._evidence, NEAR_LEAST))
        self._answers = self._join(indexes, "answers", np.uint64)
        self._answer_words = self._join(indexes, "answer_words", np.int64)
        kinds = {"tokens": np.uint16, "token_numbers": np.uint8, "token_runs": np.uint16}
        self._tokens = Words(*(self._join(indexes, name, kind) for name, kind in kinds.items()))
        self._token_weights = self._join(indexes, "token_weights", np.float32)
        counts = [np.diff(index.arrays["token_offsets"]) for index in indexes]
        self._token_offsets = np.append(0, np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts])))
        self._lost = np.array([item in index.uncovered for index in indexes for item in index.ids], bool)

    @staticmethod
    def _join(indexes: Sequence[Index], name: str, kind: type) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, kind), *(index.arrays[name].astype(kind) for index in indexes)])

    def _merge(self, indexes: Sequence[Index]) -> None:
        """One table of n-grams over all indexes, each pointing at its items with the weight that it has there."""
        sizes = np.cumsum([0] + [len(index.ids) for index in indexes])
        lengths = [np.diff(index.arrays["offsets"]) for index in indexes]
        hashes = np.concatenate([np.zeros(0, np.uint64), *(np.repeat(i.hashes, n) for i, n in zip(indexes, lengths, strict=True))])  # fmt: skip
        weights = np.concatenate([np.zeros(0, np.float32), *(np.repeat(i.weights, n) for i, n in zip(indexes, lengths, strict=True))])  # fmt: skip
        items = np.concatenate([np.zeros(0, np.int64), *(i.postings + at for i, at in zip(indexes, sizes, strict=False))])  # fmt: skip
        rare = np.concatenate([np.zeros(0, bool), *(np.repeat(n <= COMMON, n) for n in lengths)])
        rare |= self.spec.method != "coverage"
        order = np.argsort(hashes, kind="stable")
        self._hashes, first = np.unique(hashes[order], return_index=True)
        self._gram_of = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(order))))
        self._posting, self._weight, rare = items[order].astype(np.int64), weights[order], rare[order]
        self._common = np.bincount(self._posting[~rare], self._weight[~rare], minlength=sizes[-1])
        self._rare_posting, self._rare_weight = self._posting[rare], self._weight[rare]
        counts = np.bincount(self._gram_of[rare], minlength=len(first))
        self._rare_offsets = np.append(0, np.cumsum(counts))
        by_item = np.argsort(self._posting, kind="stable")
        self._item_gram, self._item_weight = self._gram_of[by_item], self._weight[by_item]
        self._item_offsets = np.append(0, np.cumsum(np.bincount(self._posting, minlength=sizes[-1])))
        bits = max(16, min(24, int(np.ceil(np.log2(16 * len(first) + 1)))))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, bool)
        self._filter[self._hashes >> self._shift] = True

    def search(self, texts: Iterable[str]) -> Iterator[list[Match]]:
        """The matches of each text in order, best first and one an item."""
        waiting: list[str] = []
        size = 0
        for text in texts:
            if len(text) > LONGEST:
                yield from self._batch(waiting)
                yield self._pieces(text)
                waiting, size = [], 0
                continue
            waiting.append(text)
            size += len(text)
            if size >= BATCH:
                yield from self._batch(waiting)
                waiting, size = [], 0
        yield from self._batch(waiting)

    def _pieces(self, text: str) -> list[Match]:
        """A long text, piece by piece. Words are counted from the piece's begin, plus the words before it."""
        best: dict[tuple[str, str], Match] = {}
        begin, passed = 0, 0
        while begin < len(text):
            piece = text[begin : begin + LONGEST]
            if begin + LONGEST < len(text):
                piece = piece[: _last_space(piece)]
            for match in self._batch([piece])[0]:
                moved = match._replace(begin=match.begin + passed, end=match.end + passed)
                kept = best.setdefault((match.benchmark, match.item), moved)
                if moved.score > kept.score:
                    best[match.benchmark, match.item] = moved
            if begin + len(piece) >= len(text):
                break
            step = _last_space(piece[: len(piece) - OVERLAP])
            passed += len(grams.words([piece[:step]], self.spec.method).hashes)
            begin += step
        return _ranked(best.values())

    def _batch(self, texts: list[str]) -> list[list[Match]]:
        found: list[list[Match]] = [[] for _ in texts]
        if not texts or not len(self._hashes):
            return found
        words = grams.words(texts, self.spec.method)
        hits = self._look_up(words)
        for document, items in self._proposed(hits, words).items():
            found[document] = self._verified(texts[document], words[document], hits, words.offsets[document : document + 2], items)  # fmt: skip
        return found

    def _look_up(self, words: Batch) -> _Hits:
        """Where n-grams of the index stand in the batch, those across documents too."""
        made = grams.ngrams(words.hashes, self.spec.ngram)
        at = np.flatnonzero(self._filter[made >> self._shift])
        near = np.minimum(np.searchsorted(self._hashes, made[at]), len(self._hashes) - 1)
        same = self._hashes[near] == made[at]
        return _Hits(at[same], near[same])

    def _proposed(self, hits: _Hits, words: Batch) -> dict[int, list[int]]:
        """By document, the items whose rare n-grams weigh enough that all of them could reach the threshold."""
        documents = np.searchsorted(words.offsets, hits.at, side="right") - 1
        once = np.unique(documents * len(self._hashes) + hits.gram)
        documents, gram = np.divmod(once, len(self._hashes))
        counts = self._rare_offsets[gram + 1] - self._rare_offsets[gram]
        total = int(counts.sum())
        if not total:
            return {}
        starts = np.repeat(self._rare_offsets[gram] - (np.cumsum(counts) - counts), counts)
        posting = starts + np.arange(total)
        document = np.repeat(documents, counts)
        keys = document * len(self._items) + self._rare_posting[posting]
        pairs, inverse = np.unique(keys, return_inverse=True)
        item = pairs % len(self._items)
        enough = np.bincount(inverse, self._rare_weight[posting]) >= self._bound[item]
        proposed: dict[int, list[int]] = {}
        for key in pairs[enough & ~self._lost[item]].tolist():
            proposed.setdefault(key // len(self._items), []).append(key % len(self._items))
        return proposed

    def _verified(self, text: str, words: Hashes, hits: _Hits, ends: Ints, items: list[int]) -> list[Match]:
        """The proposed items that a passage of one document really holds. A passage that is most like an item, but for the
        numbers, is another question of that kind: items that it is less like are not found in it either."""
        last = ends[1] - self.spec.ngram + 1
        here = slice(*np.searchsorted(hits.at, [ends[0], max(last, ends[0])]))
        own = _Hits(hits.at[here] - ends[0], hits.gram[here])
        best = {item: self._passage(own, item) for item in items}
        reached = {item: at for item, at in best.items() if at[0] >= self._least[item]}
        if self.spec.method != "coverage":
            return _ranked(Match(*self._items[item], round(score, 4), begin, end) for item, (score, begin, end) in reached.items())  # fmt: skip
        passages = {item: at for item, at in best.items() if item in reached or self._shared(own, item) >= SHARED}
        document, seen = _Document(text), Counter[int]()
        closest: list[tuple[Aligned, int]] = []
        for item in sorted(passages, key=lambda item: (-passages[item][0], item)):
            place = passages[item][1] // PLACE
            seen[place] += 1
            if seen[place] <= CLOSEST:
                closest.append((self._aligned(document, *passages[item][1:], item), -item))
        closest.sort(reverse=True)
        matches: list[Match] = []
        others: list[tuple[int, int]] = []
        for found, item in closest:
            item = -item
            if any(found.begin < stop and start < found.end for start, stop in others):
                continue
            score, _, end = passages[item]
            edited = not self._weak[item] and found.weight >= self.spec.edited and found.words >= LEAST_WORDS
            if not edited and (
                score < self._least[item] or (self._weak[item] and not self._answered(words, end, item))
            ):
                continue
            if found.agreement < self.spec.numbers:
                others.append((found.begin, found.end))
                continue
            matches.append(Match(*self._items[item], round(max(score, found.weight), 4), found.begin, found.end))
        return _ranked(matches)

    def _shared(self, hits: _Hits, item: int) -> float:
        """Share of the item's n-grams that the document has, whatever they weigh."""
        known = self._item_gram[self._item_offsets[item] : self._item_offsets[item + 1]]
        return float(np.isin(known, hits.gram).mean())

    def _aligned(self, document: _Document, begin: int, end: int, item: int) -> Aligned:
        """How much of an item stands in order around a passage. Its place is in words."""
        room = max(int(self._span[item]) - (end - begin), SLACK)
        first, passage = document.around(begin - room, end + room)
        owned = slice(self._token_offsets[item], self._token_offsets[item + 1])
        found = aligned(self._tokens.cut(owned), self._token_weights[owned], passage)
        return found._replace(begin=min(begin, document.word(first + found.begin)), end=max(end, document.word(first + found.end - 1) + 1))  # fmt: skip

    def _passage(self, hits: _Hits, item: int) -> tuple[float, int, int]:
        """(Share of the item's weight, first word, one past the last) of the best passage of the item's length."""
        owned = slice(self._item_offsets[item], self._item_offsets[item + 1])
        known, weights = self._item_gram[owned], self._item_weight[owned]
        near = np.minimum(np.searchsorted(known, hits.gram), len(known) - 1)
        mine = known[near] == hits.gram
        at, gram = hits.at[mine].tolist(), near[mine].tolist()
        inside = [0] * len(known)
        best, total, left = (0.0, 0, 0), 0.0, 0
        for right, place in enumerate(at):
            inside[gram[right]] += 1
            total += float(weights[gram[right]]) if inside[gram[right]] == 1 else 0.0
            while place - at[left] > self._span[item] - self.spec.ngram:
                inside[gram[left]] -= 1
                total -= float(weights[gram[left]]) if not inside[gram[left]] else 0.0
                left += 1
            if total > best[0] + 1e-9:
                best = (total, at[left], place + self.spec.ngram)
        return min(best[0] / float(self._evidence[item]), 1.0), best[1], best[2]

    def _answered(self, words: Hashes, end: int, item: int) -> bool:
        """Whether the item's answer stands within `ANSWER_REACH` words after the passage."""
        size = int(self._answer_words[item])
        after = grams.ngrams(words[end : end + ANSWER_REACH + size], size) if size else words[:0]
        return bool((after == self._answers[item]).any())


class _Document:
    """A document's words for alignment, made when they are asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _tokens(self) -> grams.Tokens:
        return grams.tokens(self._text)

    def around(self, begin: int, end: int) -> tuple[int, Words]:
        """Tokens of the words from `begin` up to `end`, with the number of the first."""
        first = self._tokens.first
        low, high = int(first[max(begin, 0)]), int(first[min(end, len(first) - 1)])
        return low, Words(*self._tokens[:3]).cut(slice(low, high))

    def word(self, token: int) -> int:
        """The word that a token is in."""
        return int(np.searchsorted(self._tokens.first, token, side="right")) - 1


def _last_space(piece: str) -> int:
    """Where the piece may be cut: before its last white space in the last `OVERLAP` characters, else at its end."""
    low = max(len(piece) - OVERLAP // 2, 1)
    return max(piece.rfind(" ", low), piece.rfind("\n", low), 0) or len(piece)


def _ranked(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.score, match.benchmark, match.item))
