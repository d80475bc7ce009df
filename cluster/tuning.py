"""`tune`: the best learning rate under μP, from narrow proxies that run as one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.mixing import Lab, Tell, data_of
from lablib.data.mixing.proxies import measured
from lablib.plan.tuning import RateSearch, model_flops, proxies, search
from lablib.runs import Run
from lablib.specs import LabError, Pretrain, Profile
from lablib.specs.hardware import LOCAL
from lablib.specs.units import show_flops
from lablib.train.able import check


def tune(
    target: Pretrain,
    widths: Sequence[int],
    rates: Sequence[float] = (),
    profile: str | Profile = LOCAL,
    root: Path | None = None,
    tokens: int | None = None,
    layers: int | None = None,
    seeds: int = 1,
    gpus: int = 1,
    at_once: int = 0,
    tell: Tell = lambda words: None,
) -> RateSearch:
    """Train the target's `lablib.plan.tuning.proxies` on its data, wait for them, and fit each width's best rate.

    Called again after an interruption it takes up every run that it finds in `root` and that read the same data, those that
    diverged too. The cost is told before anything starts. Raises `LabError` as `proxies` and `submit` do, and where a proxy
    ended without a held-out loss although it did not diverge.
    """
    made = proxies(target, widths, rates, tokens, layers, seeds, gpus)
    check(made[0])  # before any data is prepared
    lab = Lab(profile, root, at_once, tell)
    flops = sum(map(model_flops, made))
    tell(f"{len(made)} proxies take {show_flops(flops)}, {flops / model_flops(target):.3%} of the target's")
    data = data_of(target, lab)
    made = [one.replace(data=data) for one in made]
    return search(made, [_loss(run) for run in lab.run(made, "proxies", ended=_diverged)], target)


def _loss(run: Run) -> float | None:
    """Held-out nats a token at a proxy's end; None where it diverged."""
    if end := measured(run):
        return float(end["loss"])
    if _diverged(run):
        return None
    raise LabError(f"run {run.id} is {run.state} without a held-out loss: {run.failure or 'it has not finished'}; mend it and call again")  # fmt: skip


def _diverged(run: Run) -> bool:
    return any(event["kind"] == "not_finite" for event in run.events())
