"""`PackedDataset`: the training sequence as a pure function of an index, whatever the number of readers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lablib.data import order, shards
from lablib.data.mixing.curricula import WindowOrder, first_windows
from lablib.data.packing import Packing, pack
from lablib.specs import Curriculum, LabError, Mixture
from lablib.specs.mixtures import mean

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
    """Windows of a prepared data folder in the order of a mixture or curriculum; `data[i]` depends on nothing but i.

    A rank of any world size takes the indices that are its own; to resume, remember how many were used.
    """

    def __init__(
        self,
        folder: str | Path,
        mixture: Mixture | Curriculum | None = None,
        seq_len: int = 2048,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        """Open the folder of a Prepare run. An empty mixture takes the one that the data was prepared with, and where
        that too is empty, each domain in its natural proportion. A curriculum changes its mixture at its own tokens and
        keeps the last one after its end; a domain goes on in each phase where an earlier one left it.

        Raises `LabError` for an unknown split or domain, and for a domain without a single window.
        """
        if seq_len < 1:
            raise LabError(f"seq_len={seq_len}: a window predicts at least one token")
        if split not in ("train", "heldout"):
            raise LabError(f"split={split!r}: there are only train and heldout")
        self.folder, self.seq_len, self.split, self.seed = Path(folder), seq_len, split, seed
        self.manifest = shards.manifest(self.folder)
        self.mixture: Mixture | Curriculum = mixture or Mixture()
        self._open()

    def _open(self) -> None:
        vocab = int(self.manifest["tokenizer"]["vocab"])
        names = [row["domain"] for row in self.manifest["shards"] if row["split"] == self.split and row["docs"]]
        phases = self._phases()
        for wanted, _ in phases:
            self._check(wanted, names)
        self.domains = tuple(
            n for n in sorted(names) if any(not wanted or wanted.get(n, 0) > 0 for wanted, _ in phases)
        )
        self._shards = {name: shards.read(self.folder, name, self.split, vocab) for name in self.domains}
        self._packs: dict[str, Packing] = {
            n: pack(s.starts, s.lengths, self.seq_len + 1) for n, s in self._shards.items()
        }
        if not sum(self.windows.values()):
            raise LabError(f"{self.folder} has no {self.split} document of two tokens or more; prepare more text")
        by_phase = tuple(self._shares(wanted) for wanted, _ in phases)
        whole = sum(part for _, part in phases)
        self.shares = by_phase[0] if len(phases) == 1 else {
            name: sum(shares.get(name, 0) * part for shares, (_, part) in zip(by_phase, phases, strict=True)) / whole
            for name in self.domains
        }  # fmt: skip
        starts = first_windows(self.mixture, self.seq_len) if isinstance(self.mixture, Curriculum) else (0,)
        self.order = WindowOrder(by_phase, starts)
        self._pad = int(self.manifest["tokenizer"]["pad"])

    def _phases(self) -> list[tuple[dict[str, float], int]]:
        """(Domain → weight, tokens) of each phase; a mixture is one."""
        if isinstance(self.mixture, Curriculum):
            return [(phase.mixture.weights, phase.tokens) for phase in self.mixture.phases]
        return [(self.mixture.weights or self.manifest["mixture"], 1)]

    def _shares(self, wanted: dict[str, float]) -> dict[str, float]:
        weights = {name: wanted.get(name, 0.0) if wanted else float(self.windows[name]) for name in self.domains}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items() if weight > 0}

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

    @cached_property
    def windows(self) -> dict[str, int]:
        """Domain → windows of one epoch of it."""
        return {name: len(packed) for name, packed in self._packs.items()}

    def __len__(self) -> int:
        """Windows of one pass in which every domain is seen at least once (`__getitem__` goes on beyond it)."""
        return max(round(count / self.shares[name]) for name, count in self.windows.items())

    def __getitem__(self, index: int) -> Window:
        """The window at a global position ≥ 0. Raises IndexError below 0."""
        return self.window(*self.place(index))

    def place(self, index: int) -> tuple[str, int]:
        """(Domain, window's number in the domain, counted over all epochs) at a global position ≥ 0. Raises IndexError."""
        if index < 0:
            raise IndexError(f"index={index}: positions begin at 0")
        return self.order.place(index)

    def read(self, count: int) -> dict[str, int]:
        """Domain → tokens of it among the first `count` windows, as training counts them: seq_len a window."""
        return {name: number * self.seq_len for name, number in self.order.taken(count).items()}

    def window(self, domain: str, number: int) -> Window:
        """A domain's window by its number from the start of training; each epoch has an order of its own."""
        epoch, turn = divmod(number, self.windows[domain])
        return self._window(domain, int(order.shuffled(self.windows[domain], self.seed, domain, epoch)[turn]))

    def _window(self, domain: str, number: int) -> Window:
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
        return Window(tokens, positions, documents, domain)

    @property
    def tokens_available(self) -> int:
        """Tokens of one pass over every domain, as training counts them: seq_len a window."""
        return sum(self.tokens_by_domain.values())

    @cached_property
    def tokens_by_domain(self) -> dict[str, int]:
        """Domain → tokens of one epoch of it."""
        return {name: count * self.seq_len for name, count in self.windows.items()}

    @cached_property
    def targets(self) -> dict[str, int]:
        """Domain → tokens that one epoch predicts; the rest of `tokens_by_domain` is document starts and padding."""
        return {name: packed.targets for name, packed in self._packs.items()}

    def epochs(self, tokens: float) -> dict[str, float]:
        """Domain → passes that a training run of `tokens` makes over it, a curriculum being stretched over them."""
        return {name: tokens * self.shares[name] / held for name, held in self.tokens_by_domain.items()}

    @property
    def max_epochs(self) -> float:
        """Most passes over any domain; in a curriculum the least that a phase allows, over all phases together."""
        return mean(self.mixture).max_epochs

    def most_tokens(self) -> int:
        """Tokens at which the first domain reaches the mixture's `max_epochs`: of a curriculum, its strictest phase's."""
        return int(min(self.max_epochs * held / self.shares[n] for n, held in self.tokens_by_domain.items()))

    def check_epochs(self, tokens: float) -> None:
        """Raises `LabError` where a run of `tokens` passes over a domain more than `max_epochs` times."""
        passes = self.epochs(tokens)
        worst = max(passes, key=lambda name: passes[name])
        if passes[worst] > self.max_epochs * (1 + 1e-9):
            raise LabError(
                f"tokens={tokens:,.0f}: domain {worst} (share {self.shares[worst]:.1%}, {self.tokens_by_domain[worst]:,} "
                f"tokens) would be read {passes[worst]:.1f} times, more than mixture.max_epochs={self.max_epochs:g}. "
                f"Train on at most {self.most_tokens():,} tokens, give it a smaller weight, add data, or raise max_epochs"
            )
