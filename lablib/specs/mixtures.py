"""Published mixtures as presets, each with its source and how well it is verified, and `Curriculum`: mixtures in order."""

from __future__ import annotations

import json
import warnings
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.catalog import Table
from lablib.specs.data import Mixture
from lablib.specs.errors import LabError
from lablib.specs.units import Count

Onto = Mapping[str, "str | Mapping[str, float] | None"]
"""Published domain → one's own domain, or shares of several (summing to 1), or None to leave it out."""


class MixtureNotice(UserWarning):
    """Weights were changed on the way from a publication to a `Mixture`; the message says how."""


class Published(Spec):
    """A mixture as it was published; nothing is normalised here."""

    name: str
    title: str
    level: Literal["paper", "secondary", "memory", "guess"]
    """paper: the paper's or its repository's own text was read; secondary: others' notes of it; memory: not verified; guess:
    published by nobody, a beginning to change."""
    source: str
    weights: dict[str, float]
    """Domain → share of tokens, in parts of `whole`."""
    whole: float = Field(default=1.0, gt=0)
    """What the weights are meant to sum to: 1 or 100."""
    complete: bool = True
    """Whether all of the mixture's domains are known."""
    tokens: float | None = None
    pool_tokens: dict[str, float] = {}
    """Unique tokens that there were of each domain."""
    mix_tokens: dict[str, float] = {}
    """Tokens that training took of each."""
    note: str = ""

    @property
    def total(self) -> float:
        """Sum of the published weights, 1 where they are a whole."""
        return sum(self.weights.values()) / self.whole

    @property
    def epochs(self) -> dict[str, float]:
        """Domain → passes over its pool, where both tables were published."""
        return {name: self.mix_tokens[name] / self.pool_tokens[name] for name in self.mix_tokens}

    @property
    def notices(self) -> tuple[str, ...]:
        """What a `Mixture` made of these weights differs in from the publication."""
        found = []
        if not self.complete:
            found.append(f"{self.name}: only domains with {self.total:.1%} of the tokens are known; they are scaled up to a whole")  # fmt: skip
        elif abs(self.total - 1) > 1e-6:
            found.append(f"{self.name}: the published weights sum to {self.total:.4f}; each is divided by that")
        return tuple(found)

    def mixture(self, onto: Onto | None = None, max_epochs: float = 4.0) -> tuple[Mixture, tuple[str, ...]]:
        """(Mixture, what was changed), over the published domains or over one's own.

        `onto` must say for every published domain with a weight where it goes; nothing is matched by name. Raises
        `LabError` for a domain that it misses or does not know, and for split shares that do not sum to one.
        """
        shares, notices = {k: v / self.whole / self.total for k, v in self.weights.items() if v}, list(self.notices)
        if onto is not None:
            shares = _mapped(self.name, shares, onto)
            kept = sum(shares.values())
            if kept < 1 - 1e-9:
                notices.append(f"{self.name}: domains with {1 - kept:.1%} of the tokens are left out; the others are scaled up")  # fmt: skip
            shares = {name: share / kept for name, share in shares.items()}
        return Mixture(weights=shares, max_epochs=max_epochs), tuple(notices)


def _mapped(name: str, shares: Mapping[str, float], onto: Onto) -> dict[str, float]:
    if missing := [domain for domain in shares if domain not in onto]:
        raise LabError(f"domains: {name} has {', '.join(missing)} too; give each a domain of yours, or None to leave it out")  # fmt: skip
    if unknown := [domain for domain in onto if domain not in shares]:
        raise LabError(f"domains: {name} has no {', '.join(unknown)}; it has {', '.join(shares)}")
    mapped: dict[str, float] = {}
    for domain, share in shares.items():
        for own, part in _parts(domain, onto[domain]).items():
            mapped[own] = mapped.get(own, 0.0) + share * part
    if not mapped:
        raise LabError(f"domains: every domain of {name} is left out; keep at least one")
    return mapped


def _parts(domain: str, goes: str | Mapping[str, float] | None) -> Mapping[str, float]:
    if goes is None or isinstance(goes, str):
        return {goes: 1.0} if goes else {}
    if abs(sum(goes.values()) - 1) > 1e-6 or min(goes.values()) < 0:
        raise LabError(f"domains[{domain!r}]: the parts {dict(goes)} must not be negative and must sum to 1")
    return goes


def _read() -> dict[str, Any]:
    text = files("lablib.specs").joinpath("catalogue", "mixtures.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


mixtures: Table[Published] = Table(
    "published mixture", lambda: {name: Published(name=name, **row) for name, row in _read()["mixtures"].items()}
)
"""Published mixtures by name."""


def preset(name: str, domains: Onto | None = None, max_epochs: float = 4.0) -> Mixture:
    """A published mixture, over its own domains or mapped onto one's own (see `Published.mixture`).

    Warns with `MixtureNotice` where the weights had to be changed: published ones sum to anything from .65 to 1.0056.
    Raises `LabError` for an unknown name, with the nearest.
    """
    made, notices = mixtures[name].mixture(domains, max_epochs)
    for notice in notices:
        warnings.warn(notice, MixtureNotice, stacklevel=2)
    return made


class Phase(Spec):
    """One mixture for a number of tokens."""

    mixture: Mixture
    tokens: Count

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.mixture.weights:
            raise ValueError("a phase names the weights of its mixture; natural proportions are not known here")
        return self


class Curriculum(Spec):
    """Mixtures in order. A token belongs to the phase in which it is read: phase p covers [start, start + tokens)."""

    phases: tuple[Phase, ...] = Field(min_length=1)

    @classmethod
    def of(cls, *phases: tuple[str | float, Mixture]) -> Self:
        """``Curriculum.of(("8T", first), ("2T", second))``."""
        return cls(phases=tuple(Phase(tokens=tokens, mixture=mixture) for tokens, mixture in phases))

    @property
    def tokens(self) -> int:
        """Tokens of all phases."""
        return self.starts[-1]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first token of each phase, and the end of the last: one more than there are phases."""
        return (0, *accumulate(phase.tokens for phase in self.phases))

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain with a weight in some phase, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name, w in phase.mixture.weights.items() if w > 0))

    def phase_at(self, token: float) -> int:
        """The phase of a token, from 0. Past the end it is the last: whole steps may read a little more than planned.

        Raises `LabError` below 0.
        """
        if token < 0:
            raise LabError(f"token={token}: training begins at token 0")
        return min(bisect_right(self.starts, token) - 1, len(self.phases) - 1)

    def at(self, token: float) -> dict[str, float]:
        """Domain → share where training has read `token` tokens; a domain that is out has 0."""
        weights = self.phases[self.phase_at(token)].mixture.weights
        return {name: weights.get(name, 0.0) for name in self.domains}

    def at_step(self, step: int, step_tokens: int) -> dict[str, float]:
        """The same for the first token of the 0-based optimiser step."""
        return self.at(step * step_tokens)

    def domain_tokens(self) -> dict[str, float]:
        """Domain → tokens that all phases read of it."""
        total = dict.fromkeys(self.domains, 0.0)
        for phase in self.phases:
            for name in total:
                total[name] += phase.tokens * phase.mixture.weights.get(name, 0.0)
        return total

    def mean(self) -> Mixture:
        """The one mixture with the same tokens of every domain, with the strictest epoch limit of the phases."""
        weights = {name: tokens / self.tokens for name, tokens in self.domain_tokens().items()}
        whole = sum(weights.values())
        limit = min(phase.mixture.max_epochs for phase in self.phases)
        return Mixture(weights={name: weight / whole for name, weight in weights.items()}, max_epochs=limit)

    def scaled(self, tokens: int) -> Self:
        """The same phases in the same proportions over another number of tokens.

        Raises `LabError` where a phase would be left without a token.
        """
        ends = [round(start * tokens / self.tokens) for start in self.starts]
        lengths = [after - before for before, after in pairwise(ends)]
        if min(lengths) < 1:
            raise LabError(f"tokens={tokens}: a phase of this curriculum would be empty; give more tokens")
        return type(self)(phases=tuple(p.replace(tokens=n) for p, n in zip(self.phases, lengths, strict=True)))


def over(mixture: Mixture | Curriculum, tokens: int) -> Mixture | Curriculum:
    """What a run of `tokens` reads: a mixture as it is, a curriculum with its phases stretched over them."""
    return mixture.scaled(tokens) if isinstance(mixture, Curriculum) else mixture


def mean(mixture: Mixture | Curriculum) -> Mixture:
    """The one mixture with the same tokens of every domain."""
    return mixture.mean() if isinstance(mixture, Curriculum) else mixture


def load_mixture(path: Path) -> Mixture | Curriculum:
    """Read a mixture or a curriculum from a .json or .toml file. Raises `LabError` where it is neither."""
    kind = Curriculum if "phases" in path.read_text(encoding="utf-8") else Mixture
    return kind.load(path)


def curricula() -> tuple[str, ...]:
    """Names of the published curricula."""
    return tuple(_read()["curricula"])


def stages(name: str) -> tuple[Published, ...]:
    """The published mixtures of a curriculum, in order. Raises `LabError` for an unknown name."""
    known: dict[str, list[str]] = _read()["curricula"]
    if name not in known:
        raise LabError(f"There is no published curriculum {name!r}; there are {', '.join(known)}")
    return tuple(mixtures[stage] for stage in known[name])


def curriculum(name: str) -> Curriculum:
    """A published curriculum: its stages' mixtures in order, over the published tokens.

    Warns as `preset` does. Raises `LabError` for an unknown name.
    """
    return Curriculum.of(*((round(row.tokens or 0), preset(row.name)) for row in stages(name)))
