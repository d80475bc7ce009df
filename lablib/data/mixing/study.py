"""`Study`: a mixture learned from proxies and tried against plain ones on fresh seeds, with a verdict that may be no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lablib.data.mixing.learned import MixingLaw, Optimum, Proxies, Score, compare, learn, opinions, optimise, refits
from lablib.data.mixing.limits import Bounds
from lablib.data.mixing.proxies import measured
from lablib.data.mixing.shares import Shares
from lablib.runs import Run
from lablib.specs import LabError, Mixture, Spec
from lablib.specs.synthetic import Synthetic

LEARNED = "learned"
COLUMN = "bits_per_byte."
"""What an ``eval`` row's held-out bits a byte of a domain begin with."""


class Arm(Spec):
    """One mixture of the held-out check, trained once a seed."""

    name: str
    mixture: Mixture
    runs: tuple[str, ...]
    by_domain: dict[str, float]
    """Mean held-out bits a byte over the seeds."""
    objective: tuple[float, ...]
    """Of each seed, in one order for all arms: the importance-weighted mean over domains."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.objective))


class Verdict(NamedTuple):
    """The learned mixture against another."""

    rival: str
    gain: float
    """Bits a byte by which the learned one is below it, mean over seeds."""
    half: float
    """Half of the 95 % interval of that mean (Student's t over seeds); infinite for a single seed."""

    def __str__(self) -> str:
        said = (
            "beats"
            if self.gain > self.half
            else "loses to"
            if -self.gain > self.half
            else "was not shown to differ from"
        )
        return (
            f"the learned mixture {said} the {self.rival} one: {self.gain:+.4f} ± {self.half:.4f} bits a byte below it"
        )


class Opinion(Spec):
    """A way to fit: how it ranks proxies that it has not seen, and what it says of the learned mixture."""

    fitter: str
    spearman: float | None
    """Mean over domains; None where too few runs were held out."""
    gain: float
    """Predicted gain of the learned mixture on natural proportions."""


class Study(Spec):
    """What was found, as it is kept."""

    recipe: str
    """Name of the proxies' recipe."""
    proxies: tuple[str, ...]
    """Runs that the law was fitted on."""
    law: MixingLaw
    mixture: Mixture
    """The best by the law, within the proxies' epoch limit and caps on synthetic text."""
    predicted_gain: float
    """On natural proportions, in bits a byte."""
    predicted_range: tuple[float, float] | None
    """Its 10th and 90th percentile over refits."""
    opinions: tuple[Opinion, ...]
    arms: tuple[Arm, ...]
    flops: float
    """Model FLOPs of the proxies and the check."""
    target_flops: float | None = None
    """Of the run that the mixture is for, where it was named."""

    @property
    def cost(self) -> float | None:
        """The study's compute as a share of the target run's."""
        return self.flops / self.target_flops if self.target_flops else None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The learned mixture against each other arm, seed by seed."""
        arms = {arm.name: np.array(arm.objective) for arm in self.arms}
        return tuple(_verdict(name, found - arms[LEARNED]) for name, found in arms.items() if name != LEARNED)


def _verdict(rival: str, gains: np.ndarray) -> Verdict:
    from scipy.stats import t as student

    count = len(gains)
    half = float(student.ppf(0.975, count - 1) * gains.std(ddof=1) / np.sqrt(count)) if count > 1 else float("inf")
    return Verdict(rival, float(gains.mean()), half)


def domains_of(runs: Sequence[Run]) -> dict[str, str]:
    """Held-out domain → its column of the ``eval`` stream, those that every finished run measured.

    Raises `LabError` where there is none.
    """
    ends = [row for row in map(measured, runs) if row]
    common = [
        name for name in (ends[0] if ends else {}) if name.startswith(COLUMN) and all(name in row for row in ends)
    ]
    if not common:
        raise LabError(f"none of {len(runs)} runs has {COLUMN}<domain> in its eval stream; wait for them to finish, or look at `lab jobs` for why they failed")  # fmt: skip
    return {name.removeprefix(COLUMN): name for name in common}


def fit(proxies: Proxies, natural: Shares, tokens: float, available: Mapping[str, float], max_epochs: float,
        importance: Mapping[str, float] | None = None, written: Synthetic | None = None,
        refit: int = 30) -> tuple[MixingLaw, Optimum]:  # fmt: skip
    """(The exponential law, its best mixture against natural shares, within the epoch limit and the caps on synthetic text).
    Raises `LabError`."""
    law = learn(proxies, importance)
    bounds = Bounds(tokens=tokens, available=available, max_epochs=max_epochs, written=written)
    return law, optimise(law, natural, again=refits(proxies, law, refit), **bounds)


def second_opinions(proxies: Proxies, law: MixingLaw, mixture: Mixture, natural: Shares) -> tuple[Opinion, ...]:
    """Every way to fit that is installed, on the same runs."""
    gains = opinions(proxies, law, mixture.weights, natural)
    scores = compare(proxies) if len(proxies) >= 8 else []  # a law takes four runs, and as many as two are held out
    return tuple(Opinion(fitter=name, spearman=_mean_rank(scores, name), gain=gain) for name, gain in gains.items())


def _mean_rank(scores: Sequence[Score], fitter: str) -> float | None:
    ranks = [score.spearman for score in scores if score.fitter == fitter and np.isfinite(score.spearman)]
    return float(np.mean(ranks)) if ranks else None


def arm(name: str, mixture: Mixture, runs: Sequence[Run], law: MixingLaw) -> Arm:
    """What the runs of one mixture measured at their end. Raises `LabError` where one has not."""
    columns = {domain: f"{COLUMN}{domain}" for domain in law.importance}
    ends = [measured(run) for run in runs]
    for run, end in zip(runs, ends, strict=True):
        if not all(column in end for column in columns.values()):
            raise LabError(f"run {run.id} ({name}) is {run.state} without held-out figures: {run.failure or 'it has not finished'}")  # fmt: skip
    rows = [{domain: end[column] for domain, column in columns.items()} for end in ends]
    whole = sum(law.importance.values())
    objective = tuple(sum(law.importance[domain] * value for domain, value in row.items()) / whole for row in rows)
    means = {domain: float(np.mean([row[domain] for row in rows])) for domain in columns}
    return Arm(name=name, mixture=mixture, runs=tuple(run.id for run in runs), by_domain=means, objective=objective)
