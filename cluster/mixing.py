"""`learn_mixture`: a mixture from small proxies, run as an array, fitted, and held against plain mixtures on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from cluster.control import resume
from cluster.submission import submit_all
from lablib.data import PackedDataset, shards
from lablib.data.mixing import constrain, natural, study, temperature
from lablib.data.mixing.laws import FEWEST
from lablib.data.mixing.proxies import collect, proxies
from lablib.data.mixing.shares import Shares
from lablib.data.mixing.study import LEARNED, Arm, Study
from lablib.plan.tuning import model_flops
from lablib.runs import Run, RunState
from lablib.specs import LabError, Mixture, Prepare, Pretrain, Profile, Recipe, Ref, Shared, digest
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import runs_root
from lablib.specs.synthetic import Synthetic

Tell = Callable[[str], None]
HEAT = 2.0
"""Proxies are drawn around shares at this temperature: around natural ones hardly any would hold the smallest domains."""


class Lab:
    """Where runs go, and which are there already: nothing that was done is done again."""

    def __init__(self, profile: str | Profile, root: Path | None, at_once: int, tell: Tell) -> None:
        """Raises `LabError` for a profile that is submitted to from another machine: its runs could not be collected."""
        self.profile = Profile.load(profile) if isinstance(profile, str) else profile
        if self.profile.ssh:
            raise LabError(f"profile {self.profile.name} is submitted to from here, and its runs could not be collected; call this there, where they lie")  # fmt: skip
        self.root = (root or self.profile.root or runs_root()).absolute()
        self.at_once, self.tell = at_once, tell

    def run(self, recipes: Sequence[Recipe], what: str, anew: bool = False, ended: Callable[[Run], bool] = lambda run: False) -> list[Run]:  # fmt: skip
        """The runs of the recipes, finished: those that are there (unless `anew`) are waited for or resumed, the others
        submitted as an array. A failed one is tried anew, unless that it failed is its result (`ended`)."""
        known = {} if anew else self._known(recipes, ended)
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

    def _known(self, wanted: Sequence[Recipe], ended: Callable[[Run], bool] = lambda run: False) -> dict[str, Run]:
        """By science hash: runs that read the same bytes, and of those that share a preparation the one that owns it."""
        read = {recipe.science_hash: inputs(recipe, self.root) for recipe in wanted}
        found = {}
        for run in (Run(file.parent) for file in sorted(self.root.glob("*/recipe.json"))):
            try:
                recipe = run.recipe
                same = read.get(recipe.science_hash) == inputs(recipe, self.root)
            except LabError:
                continue  # a recipe of another version is another experiment
            helps = isinstance(recipe, Shared) and recipe.helps
            if same and not helps and (run.state is not RunState.FAILED or ended(run)):
                found[recipe.science_hash] = run
        return found


def inputs(recipe: Recipe, root: Path) -> list[str]:
    """SHA-256 of each artefact below `root` that a recipe refers to; empty for one that is not made."""
    made = [Run(root / ref.run).artefacts.get(ref.artefact) for ref in recipe.refs()]
    return [one.sha256 if one else "" for one in made]


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
    as a share of it. Called again after an interruption it takes up every run that it finds in `root` and that read the
    same data. The study is kept (`kept`). Raises `LabError` as `submit` does, for settings that no study can have, and where
    too few proxies finish.
    """
    _check_settings(count, seeds, importance or {})
    lab = Lab(profile, root, at_once, tell)
    recipe = recipe.replace(data=data_of(recipe, lab))
    assert isinstance(recipe.data, Ref)
    folder = Run(lab.root / recipe.data.run).artefact_path("data")
    available, models = tokens_of(folder, recipe.seq_len), Synthetic.of(folder)
    written = models if models.caps else None  # the usual caps only warn
    if unknown := sorted(set(importance or {}) - set(available)):
        raise LabError(f"importance names {', '.join(unknown)}; this data has {', '.join(available)}")
    shares, tokens = natural(available), float(recipe.cut.tokens)
    made = proxies(recipe, base or temperature(available, HEAT), count, seed, available, written=written)
    runs = lab.run(made, "proxies")
    found = collect(runs, study.domains_of(runs))
    limit = recipe.mean_mixture.max_epochs
    law, best = study.fit(found, shares, tokens, available, limit, importance, written)
    plain = {LEARNED: best.mixture.weights, "uniform": dict.fromkeys(shares, 1 / len(shares)), "natural": shares}
    keep = partial(constrain, tokens=tokens, available=available, max_epochs=limit, written=written)
    tried = {name: _kept(keep(one), limit) for name, one in plain.items()}
    arms, checks = _check(recipe, tried, seeds, lab, law)
    result = Study(
        recipe=recipe.name,
        proxies=tuple(run.id for run in runs),
        law=law,
        mixture=best.mixture,
        predicted_gain=best.gain,
        predicted_range=best.gain_range,
        opinions=study.second_opinions(found, law, best.mixture, shares),
        arms=arms,
        flops=sum(map(model_flops, {one.science_hash: one for one in [*made, *checks]}.values())),
        target_flops=None if target is None else model_flops(target),
    )
    result.save(kept(lab.root, recipe, count, base, seeds, seed, importance))
    return result


def kept(
    root: Path,
    recipe: Pretrain,
    count: int,
    base: Mapping[str, float] | None = None,
    seeds: int = 2,
    seed: int = 0,
    importance: Mapping[str, float] | None = None,
) -> Path:
    """Where a study is kept below the folder of runs: another recipe, data or setting is another file."""
    settings = [count, dict(base or {}), seeds, seed, dict(importance or {})]
    name = digest([recipe.science(), inputs(recipe, root), settings])[:8]
    return root / "mixtures" / f"{recipe.name}-{name}.json"


def tokens_of(data: Path, seq_len: int) -> dict[str, float]:
    """Tokens of one pass over each domain of prepared data, whatever mixture it was prepared for."""
    rows = shards.manifest(data)["shards"]
    names = sorted({row["domain"] for row in rows if row["split"] == "train" and row["docs"]})
    held = PackedDataset(data, Mixture(weights=dict.fromkeys(names, 1 / max(1, len(names)))), seq_len)
    return {name: float(size) for name, size in held.tokens_by_domain.items() if size}


def _check_settings(count: int, seeds: int, importance: Mapping[str, float]) -> None:
    if count < FEWEST:
        raise LabError(f"proxies={count}: a law takes at least {FEWEST}; three to five a domain are usual")
    if seeds < 1:
        raise LabError(f"seeds={seeds}: the check trains each mixture with at least 1 seed; give 2 or more for an interval")  # fmt: skip
    for domain, weight in importance.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise LabError(f"importance[{domain!r}]={weight}: give a finite number, 0 or more")
    if importance and not any(importance.values()):
        raise LabError(f"importance={dict(importance)}: no domain counts; give one of them more than 0")


def data_of(recipe: Pretrain, lab: Lab) -> Ref:
    """The recipe's data; a corpus is prepared first, one of the catalogue once. What lies at a path may have changed: it is
    prepared each time, of which the lab's cache leaves little to do."""
    if isinstance(recipe.data, str):
        wanted = Prepare(
            name=f"{recipe.name[:70]}-data", corpus=recipe.data, vocab=recipe.model.vocab, seed=recipe.seed
        )
        run = lab.run([wanted], "data", anew=Path(recipe.data).exists())[0]
        return run.data
    lab.tell("data")
    Run(lab.root / recipe.data.run).wait()
    return recipe.data


def _kept(shares: Shares, limit: float) -> Mixture:
    return Mixture(weights={name: share for name, share in shares.items() if share > 0}, max_epochs=limit)


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
