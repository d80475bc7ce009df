"""`PackedDataset`: the training sequence as a pure function of an index, whatever the number of readers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lablib.data import order, shards
from lablib.data.packing import Packing, pack
from lablib.specs import LabError, Mixture

IGNORED = -100
"""Label of what is not predicted."""


@dataclass(frozen=True)
class Window:
    """seq_len + 1 tokens, so that seq_len of them can be predicted. Each array is int64 (seq_len + 1,)."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    """From 0 in each document; 0 on padding."""
    documents: NDArray[np.int64]
    """0, 1, … for the window's documents; padding counts down from -1, a number for each, so that a rule "predict the
    next token where both belong to one document" never predicts padding."""
    domain: str

    @property
    def labels(self) -> NDArray[np.int64]:
        """(seq_len,): the next token, `IGNORED` where it begins another document or is padding."""
        same = self.documents[1:] == self.documents[:-1]
        return np.where(same, self.tokens[1:], IGNORED)


class PackedDataset:
    """Windows of a prepared data folder in the order of a mixture; `data[i]` depends on nothing but i.

    A rank of any world size takes the indices that are its own; to resume, remember how many were used.
    """

    def __init__(
        self,
        folder: str | Path,
        mixture: Mixture | None = None,
        seq_len: int = 2048,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        """Open the folder of a Prepare run. An empty mixture takes the one that the data was prepared with, and where
        that too is empty, each domain in its natural proportion.

        Raises `LabError` for an unknown split or domain, and for a domain without a single window.
        """
        if seq_len < 1:
            raise LabError(f"seq_len={seq_len}: a window predicts at least one token")
        if split not in ("train", "heldout"):
            raise LabError(f"split={split!r}: there are only train and heldout")
        self.folder, self.seq_len, self.split, self.seed = Path(folder), seq_len, split, seed
        self.manifest = shards.manifest(self.folder)
        self.mixture = mixture or Mixture()
        self._open()

    def _open(self) -> None:
        vocab = int(self.manifest["tokenizer"]["vocab"])
        names = [row["domain"] for row in self.manifest["shards"] if row["split"] == self.split and row["docs"]]
        wanted = self.mixture.weights or self.manifest["mixture"]
        self._check(wanted, names)
        self.domains = tuple(name for name in sorted(names) if not wanted or wanted.get(name, 0) > 0)
        self._shards = [shards.read(self.folder, name, self.split, vocab) for name in self.domains]
        self._packs: list[Packing] = [pack(item.starts, item.lengths, self.seq_len + 1) for item in self._shards]
        sizes = {name: len(packed) for name, packed in zip(self.domains, self._packs, strict=True)}
        if not sum(sizes.values()):
            raise LabError(f"{self.folder} has no {self.split} document of two tokens or more; prepare more text")
        total = sum(wanted.get(name, 0) for name in self.domains)
        self.shares = {
            name: wanted[name] / total if wanted else size / sum(sizes.values()) for name, size in sizes.items()
        }
        self._shares = tuple(self.shares[name] for name in self.domains)
        self._pad = int(self.manifest["tokenizer"]["pad"])

    def _check(self, wanted: dict[str, float], names: list[str]) -> None:
        known = {row["domain"] for row in self.manifest["shards"]}
        if unknown := sorted(set(wanted) - known):
            raise LabError(f"mixture.weights names {', '.join(unknown)}; this data has {', '.join(sorted(known))}")
        lacking = sorted(name for name, share in wanted.items() if share > 0 and name not in names)
        if lacking and self.split == "train":
            raise LabError(f"mixture.weights: {', '.join(lacking)} has no {self.split} document; give it weight 0")
        if not any(name in names for name in (wanted or names)):
            raise LabError(
                f"{self.folder} has no {self.split} document of the wanted domains; raise `heldout` or add text"
            )

    def __len__(self) -> int:
        """Windows of one pass in which every domain is seen at least once (`__getitem__` goes on beyond it)."""
        return max(round(len(p) / self.shares[d]) for d, p in zip(self.domains, self._packs, strict=True))

    def __getitem__(self, index: int) -> Window:
        """The window at a global position ≥ 0. Raises IndexError below 0."""
        if index < 0:
            raise IndexError(f"index={index}: positions begin at 0")
        domain, number = order.place(index, self._shares)
        epoch, turn = divmod(number, len(self._packs[domain]))
        shuffle = order.shuffled(len(self._packs[domain]), self.seed, self.domains[domain], epoch)
        return self._window(domain, int(shuffle[turn]))

    def _window(self, domain: int, number: int) -> Window:
        packed, size = self._packs[domain], self.seq_len + 1
        tokens = np.full(size, self._pad, dtype=np.int64)
        positions = np.zeros(size, dtype=np.int64)
        documents = np.empty(size, dtype=np.int64)
        at = 0
        for count, piece in enumerate(range(packed.first[number], packed.first[number + 1])):
            start, length = int(packed.starts[piece]), int(packed.lengths[piece])
            tokens[at : at + length] = self._shards[domain].tokens[start : start + length]
            positions[at : at + length] = np.arange(length)
            documents[at : at + length] = count
            at += length
        documents[at:] = -1 - np.arange(size - at)
        return Window(tokens, positions, documents, self.domains[domain])

    @property
    def tokens_available(self) -> int:
        """Tokens of one pass over every domain, as training counts them: seq_len a window."""
        return sum(self.tokens_by_domain.values())

    @cached_property
    def tokens_by_domain(self) -> dict[str, int]:
        """Domain → tokens of one epoch of it."""
        return {name: len(packed) * self.seq_len for name, packed in zip(self.domains, self._packs, strict=True)}

    @cached_property
    def targets(self) -> dict[str, int]:
        """Domain → tokens that one epoch predicts; the rest of `tokens_by_domain` is document starts and padding."""
        return {name: packed.targets for name, packed in zip(self.domains, self._packs, strict=True)}

    def epochs(self, tokens: float) -> dict[str, float]:
        """Domain → passes that a training run of `tokens` makes over it."""
        return {name: tokens * self.shares[name] / held for name, held in self.tokens_by_domain.items()}

    def most_tokens(self) -> int:
        """Tokens at which the first domain reaches the mixture's `max_epochs`."""
        return int(min(self.mixture.max_epochs * held / self.shares[n] for n, held in self.tokens_by_domain.items()))

    def check_epochs(self, tokens: float) -> None:
        """Raises `LabError` where a run of `tokens` passes over a domain more than `max_epochs` times."""
        passes = self.epochs(tokens)
        worst = max(passes, key=lambda name: passes[name])
        if passes[worst] > self.mixture.max_epochs * (1 + 1e-9):
            raise LabError(
                f"tokens={tokens:,.0f}: domain {worst} (share {self.shares[worst]:.1%}, {self.tokens_by_domain[worst]:,} "
                f"tokens) would be read {passes[worst]:.1f} times, more than mixture.max_epochs={self.mixture.max_epochs:g}. "
                f"Train on at most {self.most_tokens():,} tokens, give it a smaller weight, add data, or raise max_epochs"
            )
