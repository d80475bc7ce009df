"""`Detector`: which benchmark items a text holds.

Many documents at a time are hashed and looked up in NumPy; rare n-grams propose (document, item) pairs, and only a pair
that could reach its threshold is looked at closely. Memory is that of the indexes and of one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lablib.data.contamination import grams
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
    """Share of the item's n-grams, by weight, that one passage holds."""
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
        self._answers = self._join(indexes, "answers", np.uint64)
        self._answer_words = self._join(indexes, "answer_words", np.int64)
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
        self._merge_numbers(indexes)

    def _merge_numbers(self, indexes: Sequence[Index]) -> None:
        self._numbers = self._join(indexes, "numbers", np.uint64)
        self._number_masks = self._join(indexes, "number_masks", np.uint64)
        self._number_weights = self._join(indexes, "number_weights", np.float32)
        self._number_kinds = self._join(indexes, "number_kinds", np.int64)
        counts = [np.diff(index.arrays["number_offsets"]) for index in indexes]
        self._number_offsets = np.append(0, np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts])))

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
        counts = self._rare_offsets[hits.gram + 1] - self._rare_offsets[hits.gram]
        total = int(counts.sum())
        if not total:
            return {}
        starts = np.repeat(self._rare_offsets[hits.gram] - (np.cumsum(counts) - counts), counts)
        posting = starts + np.arange(total)
        document = np.repeat(np.searchsorted(words.offsets, hits.at, side="right") - 1, counts)
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
        numbers = _Numbers(text, words, self.spec.ngram)
        matches: list[Match] = []
        others: list[tuple[int, int]] = []
        for (score, begin, end), item in sorted((self._passage(own, item), -item) for item in items)[::-1]:
            item = -item
            if any(begin < stop and start < end for start, stop in others):
                continue
            if score < self._least[item] or (self._weak[item] and not self._answered(words, end, item)):
                continue
            if self.spec.method == "coverage" and self._agreement(numbers, begin, end, item) < self.spec.numbers:
                others.append((begin, end))
                continue
            matches.append(Match(*self._items[item], round(float(score), 4), begin, end))
        return _ranked(matches)

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

    def _agreement(self, numbers: _Numbers, begin: int, end: int, item: int) -> float:
        """Of the n-grams with numbers in and around the passage that the item has but for the numbers, the share, by weight,
        whose numbers are the item's too: where it has digits or where it has words, whichever is less."""
        owned = slice(self._number_offsets[item], self._number_offsets[item + 1])
        if owned.start == owned.stop:
            return 1.0
        plain, masks = numbers.around(begin, end)
        known = self._number_masks[owned]
        near = np.minimum(np.searchsorted(known, masks), len(known) - 1)
        alike = known[near] == masks
        same = np.isin(plain[alike], self._numbers[owned])
        weights, kinds = self._number_weights[owned][near[alike]], self._number_kinds[owned][near[alike]]
        total = np.bincount(kinds, weights, minlength=2)
        shares = np.bincount(kinds, weights * same, minlength=2)[total > 0] / total[total > 0]
        return float(shares.min(initial=1.0))


class _Numbers:
    """A document's n-grams with numerals in digits and with numbers masked, made when they are asked for."""

    def __init__(self, text: str, words: Hashes, size: int) -> None:
        self.text, self.words, self.size = text, words, size
        self._made: Batch | None = None

    def around(self, begin: int, end: int) -> tuple[Hashes, Hashes]:
        """N-grams of a passage and `SLACK` words on each side: in digits, masked."""
        self._made = self._made or grams.numerals([self.text])
        digits, masks = self._made[0], self._made[1]
        if not len(self.words) == len(digits) == len(masks):
            digits = masks = self.words
        near = slice(max(begin - SLACK, 0), end + SLACK)
        return grams.ngrams(digits[near], self.size), grams.ngrams(masks[near], self.size)


def _last_space(piece: str) -> int:
    """Where the piece may be cut: before its last white space in the last `OVERLAP` characters, else at its end."""
    low = max(len(piece) - OVERLAP // 2, 1)
    return max(piece.rfind(" ", low), piece.rfind("\n", low), 0) or len(piece)


def _ranked(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.score, match.benchmark, match.item))
