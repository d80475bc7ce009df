"""`learn_mixture`: a mixture from small proxies, run as an array, fitted, and held against plain mixtures on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.control import resume
from cluster.submission import submit_all
from lablib.data import PackedDataset
from lablib.data.mixing import constrain, study, temperature
from lablib.data.mixing.proxies import collect, proxies
from lablib.data.mixing.shares import Shares
from lablib.data.mixing.study import LEARNED, Arm, Study
from lablib.plan import pretraining
from lablib.plan.work import training_flops
from lablib.runs import Run, RunState
from lablib.specs import LabError, Mixture, Prepare, Pretrain, Profile, Recipe, Ref, digest
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import runs_root

Tell = Callable[[str], None]
HEAT = 2.0
"""Proxies are drawn around shares at this temperature: around natural ones hardly any would hold the smallest domains."""


class Lab:
    """Where runs go, and which are there already: nothing that was done is done again."""

    def __init__(self, profile: str | Profile, root: Path | None, at_once: int, tell: Tell) -> None:
        """Raises `LabError` for a profile that is submitted to from another machine: its runs could not be collected."""
        self.profile = Profile.load(profile) if isinstance(profile, str) else profile
        if self.profile.ssh:
            raise LabError(f"profile {self.profile.name} is submitted to from here; learn the mixture there, where its runs lie")  # fmt: skip
        self.root = (root or self.profile.root or runs_root()).absolute()
        self.at_once, self.tell = at_once, tell

    def run(self, recipes: Sequence[Recipe], what: str) -> list[Run]:
        """The runs of the recipes, finished: those that are there are waited for or resumed, the others submitted as an
        array. A failed one is tried anew."""
        known = self._known({recipe.science_hash for recipe in recipes})
        new = {recipe.science_hash: recipe for recipe in recipes if recipe.science_hash not in known}
        if new:
            made = submit_all(list(new.values()), self.profile, root=self.root, at_once=self.at_once)
            known |= dict(zip(new, made, strict=True))
        for run in known.values():
            if run.state in (RunState.STOPPED, RunState.LOST):
                resume(run)
        for number, run in enumerate(known.values()):
            self.tell(f"{what}: {number} of {len(known)}, {len(known) - len(new)} found finished or begun")
            run.wait()
        return [known[recipe.science_hash] for recipe in recipes]

    def _known(self, wanted: set[str]) -> dict[str, Run]:
        found = {}
        for run in (Run(file.parent) for file in sorted(self.root.glob("*/recipe.json"))):
            try:
                science = run.recipe.science_hash
            except LabError:
                continue  # a recipe of another version is another experiment
            if science in wanted and run.state is not RunState.FAILED:
                found[science] = run
        return found


def learn_mixture(
    recipe: Pretrain,
    count: int,
    profile: str | Profile = LOCAL,
    root: Path | None = None,
    base: Mapping[str, float] | None = None,
    target: Pretrain | None = None,
    seeds: int = 2,
    seed: int = 0,
    importance: Mapping[str, float] | None = None,
    at_once: int = 0,
    tell: Tell = lambda words: None,
) -> Study:
    """Learn the mixture of a small pretraining's data from `count` proxies of it, wait for them, and try what was learned.

    `base` is what proxies are drawn around (natural shares at temperature 2), `importance` held-out domain → how much it
    counts (all alike), `seeds` the fresh seeds of the check, `target` the run that the mixture is for: the cost is told
    as a share of it. Called again after an interruption it takes up every run that it finds in `root`. The study is kept
    (`kept`). Raises `LabError` as `submit` does, and where too few proxies finish.
    """
    lab = Lab(profile, root, at_once, tell)
    recipe = recipe.replace(data=_data(recipe, lab))
    assert isinstance(recipe.data, Ref)
    held = PackedDataset(Run(lab.root / recipe.data.run).artefact_path("data"), Mixture(), recipe.seq_len)
    natural, tokens = dict(held.shares), float(recipe.steps * recipe.step_tokens)
    available = {name: float(size) for name, size in held.tokens_by_domain.items()}
    made = proxies(recipe, base or temperature(available, HEAT), count, seed, available)
    runs = lab.run(made, "proxies")
    found = collect(runs, study.domains_of(runs))
    limit = recipe.mean_mixture.max_epochs
    law, best = study.fit(found, natural, tokens, available, limit, importance)
    plain = {LEARNED: best.mixture.weights, "uniform": dict.fromkeys(natural, 1 / len(natural)), "natural": natural}
    tried = {name: _within(shares, tokens, available, limit) for name, shares in plain.items()}
    arms, checks = _check(recipe, tried, seeds, lab, law)
    result = Study(
        recipe=recipe.name,
        proxies=tuple(run.id for run in runs),
        law=law,
        mixture=best.mixture,
        predicted_gain=best.gain,
        predicted_range=best.gain_range,
        opinions=study.second_opinions(found, law, best.mixture, natural),
        arms=arms,
        flops=sum(map(_flops, [*made, *checks])),
        target_flops=None if target is None else _flops(target),
    )
    result.save(kept(lab.root, recipe))
    return result


def kept(root: Path, recipe: Pretrain) -> Path:
    """Where the study of a recipe is kept below the folder of runs."""
    return root / "mixtures" / f"{recipe.name}-{digest(recipe.science())[:8]}.json"


def _data(recipe: Pretrain, lab: Lab) -> Ref:
    """The recipe's data; a corpus is prepared first, once."""
    if isinstance(recipe.data, str):
        wanted = Prepare(
            name=f"{recipe.name[:70]}-data", corpus=recipe.data, vocab=recipe.model.vocab, seed=recipe.seed
        )
        run = lab.run([wanted], "data")[0]
        return run.data
    lab.tell("data")
    Run(lab.root / recipe.data.run).wait()
    return recipe.data


def _within(shares: Shares, tokens: float, available: Mapping[str, float], limit: float) -> Mixture:
    kept = constrain(shares, tokens=tokens, available=available, max_epochs=limit)
    return Mixture(weights={name: share for name, share in kept.items() if share > 0}, max_epochs=limit)


def _check(recipe: Pretrain, tried: Mapping[str, Mixture], seeds: int, lab: Lab, law: study.MixingLaw) -> tuple[tuple[Arm, ...], list[Pretrain]]:  # fmt: skip
    """(Each mixture trained with the same fresh seeds, their recipes)."""
    checks = {
        name: [recipe.replace(mixture=mixture, seed=recipe.seed + 1000 + number, name=f"{recipe.name[:64]}-{name}-{number}") for number in range(seeds)]
        for name, mixture in tried.items()
    }  # fmt: skip
    flat = [one for several in checks.values() for one in several]
    runs = dict(zip((one.name for one in flat), lab.run(flat, "check on fresh seeds"), strict=True))
    arms = tuple(
        study.arm(name, tried[name], [runs[one.name] for one in several], law) for name, several in checks.items()
    )
    return arms, flat


def _flops(recipe: Pretrain) -> float:
    return float(training_flops(pretraining.job(recipe), recipe.steps * recipe.step_tokens).total)
