"""Thresholds on a table of signals: which documents go, and what each rule does. No text is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lablib.data.corpus import Corpus
from lablib.data.documents import Report, silent
from lablib.data.editing import every
from lablib.data.quality.classifier import Classifier, with_scores
from lablib.data.quality.profanity import Lexicon, with_profanity
from lablib.data.quality.table import VERSION, signals
from lablib.specs import LabError, digest
from lablib.specs.cleaning import Clean

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Effect:
    """What one rule drops from a table."""

    rule: str
    """Field of `Clean`; ``problem`` for what could not be measured."""
    says: str
    """The reason that a dropped document is given."""
    limit: str
    """The threshold as text."""
    source: str
    docs_alone: int
    bytes_alone: int
    """Of all documents that break this rule, whatever others they break."""
    docs: int
    bytes: int
    """Of those that break it and no rule before it."""


@dataclass(frozen=True)
class Verdicts:
    """Every rule asked of every document."""

    effects: tuple[Effect, ...]
    first: npt.NDArray[np.int64]
    """Index of the first rule that each document breaks, -1 where it stays."""

    @property
    def kept(self) -> Bools:
        """Which documents stay."""
        return self.first < 0


class _Asked(dict[tuple[str, str, str, str], Bools]):
    """(rule, what it says, limit, source) → which documents break it."""


def verdicts(table: pl.DataFrame, clean: Clean) -> Verdicts:
    """Rules in order: what could not be measured, then those of `Clean`. Pure; some ms for 50,000 documents.

    Raises `LabError` where the table lacks a column that a threshold needs.
    """
    asked = _asked(table, clean)
    size = table["bytes"].to_numpy()
    first = np.full(len(table), -1)
    effects = []
    for index, (names, broken) in enumerate(asked.items()):
        new = broken & (first < 0)
        first[new] = index
        effects.append(Effect(*names, int(broken.sum()), int(size[broken].sum()), int(new.sum()), int(size[new].sum())))
    return Verdicts(tuple(effects), first)


def _asked(table: pl.DataFrame, clean: Clean) -> _Asked:
    asked = _Asked()
    for problem in sorted(set(table["problem"].unique()) - {""}):
        asked["problem", f"unreadable: {problem}", "", "this lab"] = (table["problem"] == problem).to_numpy()
    if clean.blocked_hosts:
        asked["blocked_hosts", "url: blocked host", f"{len(clean.blocked_hosts)} hosts", "given"] = _blocked(
            table, clean
        )
    if clean.languages:
        other = ~table["language"].is_in(clean.languages).fill_null(True).to_numpy()
        asked["languages", "language: not wanted", ", ".join(clean.languages), "given"] = other
    for name, limit, value in clean.rules():
        if limit.signal not in table.columns:
            raise LabError(f"{name}={value:g}: the table has no column {limit.signal!r}; add it first (with_scores for a classifier's, with_profanity for a list's), or leave this threshold out")  # fmt: skip
        column = table[limit.signal].to_numpy()
        broken = column < value if limit.side == "min" else column > value
        sign = "≥" if limit.side == "min" else "≤"
        asked[name, limit.says, f"{limit.signal} {sign} {value:g}", limit.source] = broken
    return asked


def _blocked(table: pl.DataFrame, clean: Clean) -> Bools:
    ends = [f".{host.lower().strip('.')}" for host in clean.blocked_hosts]
    dotted = "." + table["host"]
    found = np.zeros(len(table), bool)
    for end in ends:
        found |= dotted.str.ends_with(end).to_numpy()
    return found


def reasons(table: pl.DataFrame, clean: Clean) -> dict[str, str]:
    """SHA-256 of each document that goes, with what the first rule that it breaks says."""
    told = verdicts(table, clean)
    says = [effect.says for effect in told.effects]
    gone = np.flatnonzero(~told.kept)
    names = table["sha256"].gather(gone)
    return {name: says[rule] for name, rule in zip(names, told.first[gone].tolist(), strict=True)}


@dataclass(frozen=True)
class Quality:
    """The funnel's step of heuristics (`lablib.data.funnel.Step`)."""

    clean: Clean
    classifier: Classifier | None = None
    """Scores documents where ``min_quality`` is set."""
    lexicon: Lexicon | None = None
    """Words that are counted where ``max_profanity`` is set."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "quality"

    def key(self) -> str:
        """Of the thresholds that are set and of how signals are measured; a preset's name does not count."""
        rules = {rule.name: rule.value for rule in self.clean.rules()}
        clean = self.clean
        judge = self.classifier.key if self.classifier and clean.min_quality is not None else ""
        listed = [self.lexicon.key] if self.lexicon and clean.max_profanity is not None else []
        return digest([VERSION, clean.splitter, sorted(clean.languages), sorted(clean.blocked_hosts), rules, judge, *listed])  # fmt: skip

    def decide(self, before: Corpus, report: Report = silent) -> Mapping[str, str]:
        """The reasons by SHA-256; signals are measured unless they are stored. Raises `LabError` where a score is bounded
        and there is no classifier, or listed words and no list."""
        table = signals(before, self.clean.splitter, report)
        if self.classifier and self.clean.min_quality is not None:
            table = with_scores(table, every(before), self.classifier)
        if self.lexicon and self.clean.max_profanity is not None:
            table = with_profanity(table, every(before), self.lexicon)
        return reasons(table, self.clean)
