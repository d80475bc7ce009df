"""`Index`: what is kept of a benchmark: hashes of n-grams and numbers about them, never its text.

The file is one line of JSON (what it is, and the arrays' names, types and lengths), then the arrays one after another,
little-endian. The same items give the same bytes, in whatever order they came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lablib.data.contamination import grams
from lablib.data.contamination.items import BenchmarkItem, checked, digest_of
from lablib.data.dedup.shingles import Batch, Hashes
from lablib.specs import LabError
from lablib.specs.contamination import NGRAM

VERSION = 3
"""Raised when the file's form or the meaning of an array changes."""
COMMON = 64
"""An n-gram that more items share than this proposes none of them, so that a document's frequent phrases cost nothing."""
LEAST_EVIDENCE = 2.5
"""Sum of the weights of an item's n-grams below which it says too little to be found by itself: its answer must follow."""
LONGEST_ANSWER = 12
"""Words of an answer that are looked for."""
TYPES = {"hashes": "<u8", "weights": "<f4", "offsets": "<i8", "postings": "<i4", "words": "<i4", "evidence": "<f4",
         "token_offsets": "<i8", "tokens": "<u2", "token_numbers": "u1", "token_runs": "<u2", "token_weights": "<f4",
         "answers": "<u8", "answer_words": "<i4"}  # fmt: skip


@dataclass(frozen=True)
class Index:
    """One benchmark's index. Item i has the i-th smallest id; n-grams are sorted by hash.

    ``hashes[g]`` is in the items ``postings[offsets[g] : offsets[g + 1]]`` and weighs ``weights[g]``, from 0 to 1.
    ``tokens`` [``token_offsets[i] : token_offsets[i + 1]``] are its words in order (`grams.Tokens`), 16 bits of each one's
    hash, with ``token_numbers``, ``token_runs`` and ``token_weights``.
    """

    name: str
    method: str
    ids: list[str]
    items_sha256: str
    normaliser: str
    uncovered: dict[str, str]
    """Items that cannot be found, with the reason."""
    arrays: dict[str, NDArray[Any]]

    def __getattr__(self, name: str) -> NDArray[Any]:
        """An array by its name in `TYPES`."""
        if name in TYPES:
            return self.arrays[name]
        raise AttributeError(name)

    @property
    def sha256(self) -> str:
        """64 hex digits of the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file's content."""
        payload = b"".join(self.arrays[name].astype(kind).tobytes() for name, kind in TYPES.items())
        facts = {
            "form": "llm-lab contamination index", "version": VERSION, "name": self.name, "method": self.method,
            "ngram": NGRAM[self.method], "items": len(self.ids), "items_sha256": self.items_sha256,
            "normaliser": self.normaliser, "ids": self.ids, "uncovered": self.uncovered,
            "arrays": [[name, kind, len(self.arrays[name])] for name, kind in TYPES.items()],
            "sha256": hashlib.sha256(payload).hexdigest(),
        }  # fmt: skip
        return json.dumps(facts, ensure_ascii=False, sort_keys=True).encode() + b"\n" + payload

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read a file. Raises `LabError` for one that is damaged, of another version, or made with another normaliser."""
        try:
            head, _, payload = path.read_bytes().partition(b"\n")
            facts = json.loads(head)
            if facts["form"] != "llm-lab contamination index" or facts["version"] != VERSION:
                raise LabError(
                    f"{path} is an index of version {facts['version']}, and this lab reads {VERSION}; make it again"
                )
            intact = hashlib.sha256(payload).hexdigest() == facts["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} is no contamination index ({error}); make it again from the items") from None
        if not intact:
            raise LabError(
                f"{path} is damaged: its content is not what its checksum says; make it again from the items"
            )
        if facts["normaliser"] != grams.fingerprint():
            raise LabError(
                f"{path} was made with another normaliser or Unicode version ({facts['normaliser']}, here "
                f"{grams.fingerprint()}), so it would miss what it should find; make it again from the items"
            )
        return cls(facts["name"], facts["method"], facts["ids"], facts["items_sha256"], facts["normaliser"],
                   facts["uncovered"], _arrays(facts["arrays"], payload))  # fmt: skip


def _arrays(described: Sequence[tuple[str, str, int]], payload: bytes) -> dict[str, NDArray[Any]]:
    arrays, begin = {}, 0
    for name, kind, length in described:
        arrays[name] = np.frombuffer(payload, kind, length, begin)
        begin += arrays[name].nbytes
    return arrays


def build(name: str, items: Sequence[BenchmarkItem], method: str = "coverage") -> Index:
    """The index of a benchmark's items. Raises `LabError` where there is none or an id comes twice."""
    ordered = checked(items, name)
    words = grams.words([item.question for item in ordered], method)
    each = [grams.ngrams(words[at], NGRAM[method]) for at in range(len(ordered))]
    arrays = _grams([np.unique(one) for one in each])
    arrays["words"] = np.diff(words.offsets)
    arrays["evidence"] = np.bincount(
        arrays["postings"], np.repeat(arrays["weights"], np.diff(arrays["offsets"])), len(ordered)
    )
    arrays |= _tokens(ordered, method) | _answers(ordered, method)
    typed = {key: np.ascontiguousarray(arrays[key], kind) for key, kind in TYPES.items()}
    uncovered = _uncovered(ordered, typed, method)
    return Index(name, method, [item.id for item in ordered], digest_of(ordered), grams.fingerprint(), uncovered, typed)


def _grams(sets: list[Hashes]) -> dict[str, NDArray[Any]]:
    """Postings of each n-gram, and its weight."""
    owners = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    every = np.concatenate(sets)
    order = np.lexsort((owners, every))
    hashes, first, shared = np.unique(every[order], return_index=True, return_counts=True)
    return {
        "hashes": hashes,
        "weights": _rarity(shared, len(sets)),
        "offsets": np.append(first, len(every)),
        "postings": owners[order],
    }


def _tokens(items: list[BenchmarkItem], method: str) -> dict[str, NDArray[Any]]:
    """Each item's words in order for alignment."""
    found = [grams.tokens(item.question if method == "coverage" else "") for item in items]
    return {
        "tokens": np.concatenate([one.hashes for one in found]),
        "token_numbers": np.concatenate([one.numbers for one in found]),
        "token_runs": np.concatenate([one.runs for one in found]),
        "token_weights": np.concatenate(_in_context([one.hashes.astype(np.uint64) for one in found])),
        "token_offsets": np.cumsum([0] + [len(one.hashes) for one in found]),
    }


def _in_context(items: list[Hashes]) -> list[NDArray[np.float64]]:
    """A word weighs what the commonest of the n-grams with it does, so that a template's words weigh nothing beside an
    item's own, and a number that is everywhere weighs much where it is an item's own."""
    size = NGRAM["coverage"]
    arrays = _grams([np.unique(grams.ngrams(one, size)) for one in items])
    weights = []
    for one in items:
        own = arrays["weights"][np.searchsorted(arrays["hashes"], grams.ngrams(one, size))]
        shifts = [np.pad(own, (at, size - 1 - at), constant_values=1.0) for at in range(size)]
        weights.append(np.min(shifts, axis=0)[: len(one)])
    return weights


def _rarity(shared: NDArray[np.int64], items: int) -> NDArray[np.float64]:
    """Weight of what `shared` of the items have: ln((N + 1) / df) / ln(N + 1), 1 for what no two share."""
    return np.log((items + 1) / shared) / np.log(items + 1)


def _answers(items: list[BenchmarkItem], method: str) -> dict[str, NDArray[Any]]:
    """The first words of each answer in one hash; 0 words where there is no answer."""
    words: Batch = grams.words([item.answer for item in items], method)
    heads = [words[at][:LONGEST_ANSWER] for at in range(len(items))]
    hashes = [grams.ngrams(head, len(head))[0] if len(head) else np.uint64(0) for head in heads]
    return {"answers": np.array(hashes, np.uint64), "answer_words": np.array([len(head) for head in heads])}


def _uncovered(items: list[BenchmarkItem], arrays: dict[str, NDArray[Any]], method: str) -> dict[str, str]:
    size = NGRAM[method]
    own = np.repeat(np.diff(arrays["offsets"]) <= COMMON, np.diff(arrays["offsets"]))
    proposed = np.bincount(arrays["postings"][own], minlength=len(items)) > 0
    reasons = {}
    for at, item in enumerate(items):
        if arrays["words"][at] < size:
            reasons[item.id] = f"fewer than {size} words"
        elif method == "coverage" and not proposed[at]:
            reasons[item.id] = f"each of its n-grams is in more than {COMMON} items"
        elif method == "coverage" and arrays["evidence"][at] < LEAST_EVIDENCE and not arrays["answer_words"][at]:
            reasons[item.id] = "too little that is its own, and no answer to confirm it by"
    return reasons
