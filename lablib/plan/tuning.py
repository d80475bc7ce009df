"""The search for a learning rate on narrow models (μTransfer, arXiv 2203.03466 §4): recipes, their cost, and what they found.

>>> made = proxies(target, widths=(256, 512))                     # a run for each width, rate and seed
>>> print(cost(made, target, cluster))                            # before anything is submitted
>>> found = search(made, losses, target)                          # each width's best rate, with its interval
>>> found.filled(target)                                          # the target at the best rate, under μP

Nothing is submitted here: `cluster.tuning.tune` does that. Under μP the best rate of every width is the same, which more than
one width puts to the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lablib.plan import pretraining
from lablib.plan.estimate import estimate
from lablib.plan.params import count
from lablib.plan.scaling import Scale, learning_rate
from lablib.plan.work import training_flops
from lablib.specs import Cluster, LabError, Parallelism, Pretrain, Spec, Stability
from lablib.specs.recipe import MuP
from lablib.specs.units import show_count, show_flops

RATES = 7
"""Rates of a search unless others are given, each twice the one before, about what the laws say of the narrowest proxy."""
LEAST_RATES = 3
"""A parabola goes through as many."""
TOKENS_A_PARAMETER = 20
"""Of the widest proxy's parameters without embeddings (arXiv 2203.15556 §3), unless another number of tokens is given."""
LEAST_STEPS = 100
"""Steps that a proxy's default tokens give at least; it needs a tenth of them at the very least."""
REACH = 2
"""Rates on each side of the best one that the parabola goes through: further away a loss is none."""
CONFIDENCE = 0.95
UNKNOWN = 0.5
"""Doublings that a best rate may be off where three losses leave no interval."""


class Cost(Spec):
    """What a search takes beside the run that it is for, on one cluster."""

    runs: int
    tokens: int
    """Of each run."""
    flops: float
    target_flops: float
    gpu_hours: float
    target_gpu_hours: float
    dollars: float | None
    """None where no price is known."""

    @property
    def share(self) -> float:
        """Model FLOPs of all proxies over the target's."""
        return self.flops / self.target_flops

    @property
    def share_of_hours(self) -> float:
        """The same of GPU-hours: narrow models use an accelerator less well."""
        return self.gpu_hours / self.target_gpu_hours

    def __str__(self) -> str:
        price = "" if self.dollars is None else f", ${self.dollars:,.2f}"
        return (
            f"{self.runs} proxies of {show_count(self.tokens)} tokens take {show_flops(self.flops)}, {self.share:.3%} of the "
            f"target's, and {self.gpu_hours:.3g} GPU-hours, {self.share_of_hours:.3%} of its{price}"
        )


class Valley(Spec):
    """The bottom of the parabola through the losses of one width, over the logarithm of the rate."""

    width: int
    rate: float
    """Where it is lowest; at an edge the best rate that was tried."""
    low: float | None
    """Ends of its 95 % interval (Student's t on the parabola's residual); None where three losses leave no residual, and at
    an edge."""
    high: float | None
    loss: float
    """At the best rate that was tried, mean over seeds."""
    edge: str = ""
    """Why there is no bottom among the rates; empty where there is one."""


class RateSearch(Spec):
    """What the proxies found."""

    hidden: int
    """The narrowest width, which the rate is tuned on."""
    layers: int | None
    """Of the proxies, where they are shallower than the target."""
    valleys: tuple[Valley, ...]
    """Narrowest first."""
    trials: tuple[tuple[int, float, float | None], ...]
    """(width, rate, held-out loss in nats a token) of every proxy; None where it diverged."""
    flops: float
    """Model FLOPs of all proxies."""
    target_flops: float

    @property
    def rate(self) -> float:
        """The widest proxies' best rate: they are nearest to the target."""
        return self.valleys[-1].rate

    @property
    def drift(self) -> float:
        """Doublings of the best rate from the narrowest to the widest proxies; 0 under a parametrisation that transfers."""
        return float(np.log2(self.valleys[-1].rate / self.valleys[0].rate))

    @property
    def verdict(self) -> str:
        """Whether the rate may be taken to the target, in a sentence."""
        if edges := [f"width {one.width}: {one.edge}" for one in self.valleys if one.edge]:
            return "No best rate yet. " + "; ".join(edges)
        last = self.valleys[-1]
        band = "" if last.low is None or last.high is None else f" (95 %: {last.low:.2g} to {last.high:.2g})"
        said = f"The best rate is {self.rate:.2g}{band}"
        if len(self.valleys) == 1:
            return f"{said}, of one width: a second one would show whether it transfers."
        moved = f"from width {self.hidden} to {last.width} it moves by {abs(self.drift):.2f} doublings"
        return f"{said}; {moved}, which is {'no more' if self._agree() else 'more'} than its intervals allow{'.' if self._agree() else ': it does not transfer yet; train the proxies longer or wider.'}"

    def _agree(self) -> bool:
        first, last = self.valleys[0], self.valleys[-1]
        halves = [float(np.log2(one.high / one.rate)) if one.high else UNKNOWN for one in (first, last)]
        return abs(self.drift) <= math.hypot(*halves)

    def filled(self, target: Pretrain) -> Pretrain:
        """The target under μP at the best rate. Raises `LabError` where the rates had none between them."""
        if any(one.edge for one in self.valleys):
            raise LabError(f"{self.verdict}; give --low, --high or --rates so that the best one lies between others, or more --tokens or --seeds where noise hides it")  # fmt: skip
        return target.replace(
            mup=MuP(hidden=self.hidden, layers=self.layers), optimizer=target.optimizer.replace(learning_rate=self.rate)
        )


def proxies(
    target: Pretrain,
    widths: Sequence[int],
    rates: Sequence[float] = (),
    tokens: int | None = None,
    layers: int | None = None,
    seeds: int = 1,
    gpus: int = 1,
) -> list[Pretrain]:
    """The target at each of `widths`, `rates` and `seeds`, all under μP tuned on the narrowest: narrowest and lowest first.

    Batch (a growing one at its full size), schedule, sequences and data are the target's; `tokens` is what each reads, `layers`
    how deep they are (the target's), `gpus` the data-parallel ranks of each. Raises `LabError` for widths that are not below the
    target's or do not hold whole heads, fewer than three rates, no seed, and as `Pretrain` does where μP is not for this
    optimiser or a tied head; which families it is for is the trainer's to say (`lablib.train.able`).
    """
    if type(target) is not Pretrain:
        raise LabError(
            f"stage={target.stage!r}: μP's rate is that of a training from the start; give a pretrain recipe"
        )
    widths = sorted(set(widths))
    _check_widths(target, widths)
    rates = sorted({float(rate) for rate in rates or rates_about(target, widths[0], layers)})
    if len(rates) < LEAST_RATES or not math.isfinite(rates[-1]):
        raise LabError(f"rates={rates}: a parabola takes at least {LEAST_RATES} different finite ones; give more, or further apart")  # fmt: skip
    if seeds < 1:
        raise LabError(f"seeds={seeds}: each rate takes at least 1 seed")
    found = []
    for width in widths:
        model = target.model.widened(width)
        model = model if layers is None else model.replace(layers=layers)
        base = target.replace(
            model=model,
            mup=MuP(hidden=widths[0], layers=layers),
            tokens=_tokens(target, widths[-1], layers) if tokens is None else tokens,
            batch_tokens=target.step_tokens,
            batch_ramp=None,
            parallelism=Parallelism(dp_shard=gpus, micro_batch_size=target.parallelism.micro_batch_size),
            offload="none",
            inspect_every=None,
            permanent_every=None,
            stability=Stability(max_rewinds=0, recheck=False),
        )
        if base.steps < LEAST_STEPS // 10:
            raise LabError(f"tokens={base.tokens:,} are {base.steps} steps of {base.step_tokens:,} tokens, too few to tell rates apart; give at least {LEAST_STEPS // 10 * base.step_tokens:,}")  # fmt: skip
        for number, rate in enumerate(rates):
            optimizer = target.optimizer.replace(learning_rate=rate)
            for seed in range(seeds):
                name = f"{target.name[:56]}-mup-{width}-{number}-{seed}"
                found.append(base.replace(optimizer=optimizer, seed=target.seed + seed, name=name))
    return found


def rates_about(target: Pretrain, width: int, layers: int | None = None, count: int = RATES) -> list[float]:
    """`count` rates, each twice the one before, about the published laws' for the target at this width. Raises `LabError` for a
    width that is not below the target's or does not hold whole heads."""
    _check_widths(target, [width])
    narrow = target.model.widened(width).replace(layers=layers or target.model.layers)
    middle = learning_rate(Scale.of(target.replace(model=narrow, mup=None, tokens=_tokens(target, width, layers))))
    return [float(f"{middle * 2.0 ** (number - (count - 1) / 2):.2e}") for number in range(count)]


def cost(made: Sequence[Pretrain], target: Pretrain, cluster: Cluster) -> Cost:
    """What proxies take on a cluster beside the target there. Raises `LabError` as `estimate` does."""
    plans, whole = [estimate(one, cluster) for one in made], estimate(target, cluster)
    priced = [plan.dollars.mid for plan in plans if plan.dollars]
    return Cost(
        runs=len(made),
        tokens=made[0].tokens,
        flops=sum(plan.flops.total for plan in plans),
        target_flops=whole.flops.total,
        gpu_hours=sum(plan.gpu_hours.mid for plan in plans),
        target_gpu_hours=whole.gpu_hours.mid,
        dollars=sum(priced) if len(priced) == len(plans) else None,
    )


def search(made: Sequence[Pretrain], losses: Sequence[float | None], target: Pretrain) -> RateSearch:
    """The best rate at each width of `proxies`, from their held-out losses in the same order; None for one that diverged.

    Raises `LabError` where a width has fewer than three losses.
    """
    tuned = made[0].mup
    assert tuned is not None
    trials = [(one.model.hidden, one.optimizer.learning_rate, loss) for one, loss in zip(made, losses, strict=True)]
    valleys = []
    for width in sorted({width for width, _, _ in trials}):
        own = [(rate, np.nan if loss is None else loss) for at, rate, loss in trials if at == width]
        valleys.append(valley(width, *np.array(own).T))
    return RateSearch(
        hidden=tuned.hidden,
        layers=tuned.layers,
        valleys=tuple(valleys),
        trials=tuple(trials),
        flops=sum(map(model_flops, made)),
        target_flops=model_flops(target),
    )


def model_flops(recipe: Pretrain) -> float:
    """Of the whole training, without what is computed again."""
    return float(training_flops(pretraining.job(recipe), recipe.cut.tokens).total)


def valley(width: int, rates: np.ndarray, losses: np.ndarray) -> Valley:
    """The bottom of a least-squares parabola over log₂ rate through the best rate and its neighbours, `REACH` on each side; a
    rate diverged where a loss of it is not finite. Raises `LabError` for fewer than three rates that did not."""
    grid = np.unique(rates)
    means = np.array([losses[rates == rate].mean() for rate in grid])
    there = np.flatnonzero(np.isfinite(means))
    if len(there) < LEAST_RATES:
        raise LabError(f"width {width}: {len(there)} of {len(grid)} rates have a loss, a parabola takes three; see `lab jobs` for why the others have none, or give lower rates")  # fmt: skip
    best = there[means[there].argmin()]
    plain = {"width": width, "rate": float(grid[best]), "loss": float(means[best])}
    if best in (there[0], there[-1]):
        edge = "lowest" if best == there[0] else "highest"
        more = " that did not diverge" if best < len(grid) - 1 and best == there[-1] else ""
        return Valley(**plain, low=None, high=None, edge=f"the {edge} rate{more}, {grid[best]:.2g}, is the best")
    near = np.isin(rates, grid[there[abs(there - best) <= REACH]])
    fit = _vertex(x := np.log2(rates[near] / grid[best]), losses[near])
    if fit is None:
        return Valley(**plain, low=None, high=None, edge=f"no parabola has its lowest point near {grid[best]:.2g}")
    bottom, half = fit
    if half is not None and half > np.ptp(x):
        return Valley(
            **plain, low=None, high=None, edge=f"losses near {grid[best]:.2g} differ by no more than their noise"
        )
    ends = (
        (None, None) if half is None else tuple(float(grid[best] * 2.0 ** (bottom + sign * half)) for sign in (-1, 1))
    )
    return Valley(**{**plain, "rate": float(grid[best] * 2.0**bottom)}, low=ends[0], high=ends[1])


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[float, float | None] | None:
    """(-b/2c of the parabola a + b·x + c·x², half of its interval by the delta method, None where there is no residual); None
    where it opens downwards or its vertex lies outside of the points."""
    from scipy.stats import t as student

    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    found = np.linalg.lstsq(design, y)[0]
    _, b, c = found
    if c <= 0 or not x.min() <= -b / (2 * c) <= x.max():
        return None
    bottom, free = float(-b / (2 * c)), len(x) - 3
    if free == 0:
        return bottom, None
    spread = np.sum((y - design @ found) ** 2) / free * np.linalg.inv(design.T @ design)
    slope = np.array([0.0, -1 / (2 * c), b / (2 * c**2)])
    return bottom, float(student.ppf((1 + CONFIDENCE) / 2, free) * np.sqrt(slope @ spread @ slope))


def _check_widths(target: Pretrain, widths: Sequence[int]) -> None:
    model = target.model
    if not widths:
        raise LabError("widths: give at least one below the target's; two show whether the rate transfers")
    for width in widths:
        if not 0 < width < model.hidden:
            raise LabError(f"widths: {width} is no width below the target's hidden={model.hidden}; give narrower ones, above 0")  # fmt: skip
        if width * model.heads % model.hidden:
            raise LabError(f"widths: {width} does not hold whole heads; give multiples of {model.hidden // np.gcd(model.hidden, model.heads)}")  # fmt: skip


def _tokens(target: Pretrain, width: int, layers: int | None) -> int:
    """What a proxy reads where nothing is said: no more than the target."""
    model = target.model.widened(width)
    size = count(model if layers is None else model.replace(layers=layers))
    wanted = max(TOKENS_A_PARAMETER * (size.active - size.embedding), LEAST_STEPS * target.step_tokens)
    return min(target.tokens, int(wanted))
