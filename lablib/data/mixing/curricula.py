"""Curricula: how mixtures change over training, and which window comes at which place while they do.

`lablib.specs.mixtures.Curriculum` says what is wanted; this builds the usual shapes and turns one into an order of
windows that depends on nothing but the index, as `lablib.data.order` does for one mixture.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

from lablib.data import order
from lablib.data.mixing.shares import natural
from lablib.specs import LabError, Mixture
from lablib.specs.mixtures import Curriculum, Phase


def anneal(main: Mixture, last: Mixture, tokens: int, share: float) -> Curriculum:
    """`main`, then `last` for the final `share` of the tokens: high-quality data where the learning rate decays.

    As in mid-training (OLMo 2, arXiv 2501.00656) and MiniCPM's decay (arXiv 2404.06395). Raises `LabError` unless
    0 < share < 1 and both parts hold a token.
    """
    cooled = round(tokens * share)
    if not 0 < share < 1 or not 0 < cooled < tokens:
        raise LabError(f"share={share}: the last mixture takes more than none and less than all of {tokens} tokens")
    return Curriculum.of((tokens - cooled, main), (cooled, last))


def ramp(first: Mixture, last: Mixture, tokens: int, pieces: int = 8) -> Curriculum:
    """A straight line from one mixture to another in equal pieces; the first piece is `first`, the last one `last`.

    Raises `LabError` for fewer than two pieces or more pieces than tokens.
    """
    if not 2 <= pieces <= tokens:
        raise LabError(f"pieces={pieces}: a ramp takes from 2 pieces to one a token ({tokens})")
    ends = [tokens * number // pieces for number in range(pieces + 1)]
    mixed = [between(first, last, number / (pieces - 1)) for number in range(pieces)]
    return Curriculum(phases=tuple(Phase(mixture=m, tokens=b - a) for m, a, b in zip(mixed, ends, ends[1:], strict=False)))  # fmt: skip


def between(first: Mixture, last: Mixture, way: float) -> Mixture:
    """The mixture `way` of the way from one to another; the stricter epoch limit holds. Raises `LabError` outside [0, 1]."""
    if not 0 <= way <= 1:
        raise LabError(f"way={way}: from 0 (the first mixture) to 1 (the last)")
    names = dict.fromkeys([*first.weights, *last.weights])
    mixed = {n: (1 - way) * first.weights.get(n, 0.0) + way * last.weights.get(n, 0.0) for n in names}
    return Mixture(weights={n: w for n, w in mixed.items() if w > 0}, max_epochs=min(first.max_epochs, last.max_epochs))


def epochs(plan: Curriculum, available: Mapping[str, float]) -> dict[str, float]:
    """Domain → passes over its tokens in all phases together; infinite where it has none."""
    return {
        name: tokens / available[name] if available.get(name) else float("inf")
        for name, tokens in plan.domain_tokens().items()
    }


def check_epochs(plan: Curriculum, available: Mapping[str, float]) -> None:
    """Raises `LabError` where all phases together pass over a domain more often than the strictest of them allows."""
    limit, passes = plan.mean().max_epochs, epochs(plan, available)
    worst = max(passes, key=lambda name: passes[name])
    if passes[worst] > limit * (1 + 1e-9):
        raise LabError(
            f"{worst} would be read {passes[worst]:.1f} times over all phases, more than max_epochs={limit:g}. "
            "Give it a smaller weight or fewer tokens, add data, or raise max_epochs in every phase"
        )


@dataclass(frozen=True)
class WindowOrder:
    """Windows of one phase or several: `order.place` in each, counting on in each domain from phase to phase.

    A window belongs to the phase in which its first token is read, so phases begin at whole windows.
    """

    shares: tuple[dict[str, float], ...]
    """Of each phase: domain → share above 0, summing to one. Their order decides ties."""
    first_windows: tuple[int, ...] = (0,)
    """The first window of each phase."""

    @classmethod
    def of(cls, plan: Curriculum, seq_len: int) -> Self:
        """The order of a curriculum, whatever order its weights are written in."""
        weights = ({n: w for n, w in sorted(phase.mixture.weights.items()) if w > 0} for phase in plan.phases)
        return cls(tuple(map(natural, weights)), first_windows(plan, seq_len))

    @cached_property
    def _values(self) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(shares.values()) for shares in self.shares)

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        return tuple(map(tuple, self.shares))

    @cached_property
    def _before(self) -> tuple[dict[str, int], ...]:
        """Windows of each domain before each phase."""
        totals = [dict.fromkeys((name for names in self._names for name in names), 0)]
        for phase, (begin, end) in enumerate(pairwise(self.first_windows)):
            counts = dict(zip(self._names[phase], taken(end - begin, self._values[phase]), strict=True))
            totals.append({name: total + counts.get(name, 0) for name, total in totals[-1].items()})
        return tuple(totals)

    def place(self, index: int) -> tuple[str, int]:
        """(Domain, window's number in the domain from the start of training) at a global position ≥ 0."""
        phase = bisect_right(self.first_windows, index) - 1
        domain, number = order.place(index - self.first_windows[phase], self._values[phase])
        name = self._names[phase][domain]
        return name, self._before[phase][name] + number

    def taken(self, count: int) -> dict[str, int]:
        """Domain → windows of it among the first `count`."""
        phase = bisect_right(self.first_windows, count) - 1
        last = taken(count - self.first_windows[phase], self._values[phase])
        here = dict(zip(self._names[phase], last, strict=True))
        return {name: before + here.get(name, 0) for name, before in self._before[phase].items()}


def first_windows(plan: Curriculum, seq_len: int) -> tuple[int, ...]:
    """The first window of each phase."""
    return tuple(-(-start // seq_len) for start in plan.starts[:-1])


def taken(count: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Windows of each domain among the first `count` of `order.place`, without going through them."""
    if count == 0:
        return (0,) * len(shares)
    last, number = order.place(count - 1, shares)
    time = (number + 0.5) / shares[last]
    return tuple(_due(time, share, ties=domain <= last) for domain, share in enumerate(shares))


def _due(time: float, share: float, ties: bool) -> int:
    """Windows of a domain that come before `time`, or at it where `ties` says so; the comparison of `order`, bit for bit."""
    guess = max(0, int(time * share + 0.5))
    while guess > 0 and _after(guess - 1, share, time, ties):
        guess -= 1
    while not _after(guess, share, time, ties):
        guess += 1
    return guess


def _after(number: int, share: float, time: float, ties: bool) -> bool:
    due = (number + 0.5) / share
    return due > time if ties else due >= time
