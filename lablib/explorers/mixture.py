"""The mixture planner: what a mixture takes from each domain, how often it repeats it, what that is worth and costs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.charts.mixture import epochs_by_domain, labels, mixture_over_training
from lablib.data import shards
from lablib.data.mixing import constrain, curricula, effective_tokens, natural, temperature, unimax
from lablib.data.mixing.learned import MixingLaw
from lablib.explorers import cards, show
from lablib.explorers.budget import ACCELERATORS, MODELS, BudgetPlan
from lablib.explorers.domains import stack
from lablib.explorers.explorer import Explorer, catalogued, knob
from lablib.explorers.view import Headline, Table, View
from lablib.plan import Estimate, estimate
from lablib.plan.repeats import WORTHWHILE_EPOCHS
from lablib.runs import Run
from lablib.specs import LabError, Mixture, Pretrain
from lablib.specs.mixtures import Curriculum, Phase, Published, mixtures, stages
from lablib.specs.mixtures import curricula as published_curricula
from lablib.specs.synthetic import Caps, Synthetic, Written
from lablib.specs.units import show_count

LEAST = 10_000
"""Fewest tokens of a plan."""
PRESETS = (*mixtures, *published_curricula())


class MixturePlan(Explorer):
    """A published mixture, a rule over its domains, or one's own curriculum; the state is a pretraining's recipe."""

    preset: str = knob("olmo3", "Mixture", choices=PRESETS)
    rule: Literal["as published", "natural", "temperature", "UniMax"] = knob("as published", "Weights")
    heat: float = knob(2.0, "Temperature", 0.5, 20, step=0.1)
    max_epochs: float = knob(4.0, "Epoch cap", 0.5, 50, step=0.5)
    over_the_cap: Literal["warn", "move weights"] = knob("warn", "Over the cap")
    tokens: int = knob(6_000_000_000_000, "Tokens", LEAST, 20_000_000_000_000, log=True)
    model: str = knob("llama-3.1-8b", "Model", choices=MODELS)
    accelerator: str = knob("h100-sxm", "Accelerator", choices=ACCELERATORS)
    gpus: int = knob(256, "Accelerators", 1, 16384, powers_of_two=True)
    base: Pretrain | None = None
    """One's own pretraining, of which mixture and tokens are set; `model` is then not read."""
    plan: Curriculum | None = None
    """One's own mixtures in order, stretched over the tokens; `preset` is then not read."""
    available: dict[str, float] = {}
    """Domain → unique tokens that there are; empty takes the pool that was published."""
    source_dollars: dict[str, float] = {}
    """Domain → US dollars for 10⁹ unique tokens of it (licence, generation, extraction); the rest cost nothing."""
    badges: dict[str, tuple[str, ...]] = {}
    """Domain → what its data card says in a few words: licences, synthetic share, decontamination."""
    written: dict[str, Written] = {}
    """Domain → how much of it a model wrote; people wrote the others."""
    caps: Caps = Caps()
    """On text that models wrote, in what is read."""
    law: MixingLaw | None = None
    """A law learned from proxies: what the mixture does to each target's loss."""

    _known = field_validator("model", "accelerator")(catalogued)

    @model_validator(mode="after")
    def _listed(self) -> MixturePlan:
        if self.preset not in PRESETS:
            raise ValueError(f"preset: there is no {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.plan is not None and self.rule != "as published" and not self.available:
            raise ValueError(
                "rule: a curriculum of one's own has its weights; choose 'as published', or give `available`"
            )
        return self

    @classmethod
    def of(cls, run: Run, **inputs: Any) -> Self:
        """The planner on what a data run made: its domains in natural shares, their tokens, their cards' badges and what of
        them models wrote, under the run's caps.

        `inputs` are fields that differ. Raises `LabError` where the run has made no data.
        """
        data = run.artefact_path("data")
        rows, models = shards.manifest(data)["shards"], Synthetic.of(data)
        held = {row["domain"]: float(row["tokens"]) for row in rows if row["split"] == "train" and row["tokens"]}
        plan = Curriculum.of((round(sum(held.values())), Mixture(weights=natural(held))))
        made = {"plan": plan, "tokens": max(LEAST, plan.tokens), "available": held, "badges": cards.badges(run)}
        return cls(**{**made, "written": models.domains, "caps": models.caps or Caps(), **inputs})

    @property
    def pool(self) -> dict[str, float]:
        """Domain → unique tokens, where known."""
        known: dict[str, float] = {}
        for row in self._rows:
            known |= row.pool_tokens
        return {**({} if self.plan else known), **self.available}

    @property
    def _rows(self) -> tuple[Published, ...]:
        if self.plan is not None:
            return ()
        return stages(self.preset) if self.preset in published_curricula() else (mixtures[self.preset],)

    @cached_property
    def curriculum(self) -> Curriculum:
        """The mixtures that are read, over the tokens. Raises `LabError` where a rule needs a pool that is not known."""
        if self.plan is not None and self.rule == "as published":
            wanted = self.plan.scaled(self.tokens)
        elif self.rule != "as published":
            wanted = Curriculum.of((self.tokens, Mixture(weights=self._ruled(), max_epochs=self.max_epochs)))
        else:
            phases = [(row.tokens or self.tokens, row.mixture(None, self.max_epochs)[0]) for row in self._rows]
            wanted = Curriculum.of(*((round(size), mixed) for size, mixed in phases)).scaled(self.tokens)
        return held(wanted, self.pool, self.max_epochs) if self.over_the_cap == "move weights" else wanted

    def _ruled(self) -> dict[str, float]:
        if not self.pool:
            raise LabError(f"rule={self.rule!r}: the tokens that {self.preset} had of each domain are not published; give `available`, or take the weights as published")  # fmt: skip
        if self.rule == "natural":
            return natural(self.pool)
        if self.rule == "temperature":
            return temperature(self.pool, self.heat)
        return unimax(self.pool, self.tokens, self.max_epochs)

    @property
    def recipe(self) -> Pretrain:
        """The pretraining: with one mixture, or with the curriculum. Raises `LabError` where the knobs do not go together."""
        phases = [
            one.replace(mixture=one.mixture.replace(max_epochs=self.max_epochs)) for one in self.curriculum.phases
        ]
        mixture = phases[0].mixture if len(phases) == 1 else Curriculum(phases=tuple(phases))
        return (self.base or self._budget.recipe).replace(mixture=mixture, tokens=self.tokens)

    @property
    def _budget(self) -> BudgetPlan:
        return BudgetPlan(
            model=self.model, tokens=max(self.tokens, 1_000_000_000), accelerator=self.accelerator, gpus=self.gpus
        )

    def view(self) -> View:
        """Shares over training, passes and their worth, cost of each domain, and the predicted effect where a law is given."""
        spent = self.curriculum.domain_tokens()
        passes = {name: count for name, count in curricula.epochs(self.curriculum, self.pool).items() if self.pool.get(name)}  # fmt: skip
        plan = estimate(self.recipe, self._budget.cluster)
        effect = self._effect()
        return View(
            title=self._title(),
            subtitle=" · ".join(f"{row.title} ({row.level}: {row.source})" for row in self._rows),
            headlines=(*self._worth(spent, passes), *self._models(spent), _money(plan, self._acquired(spent))),
            charts=(*FIGURES[: 2 if passes else 1], *((EFFECT,) if effect else ())),
            frames={"mixture": _stacked(self.curriculum), **self._repeats(passes), **effect},
            tables=(self._table(spent, passes, plan),),
            notes=self._notes(spent, passes, bool(effect)),
        )

    def _title(self) -> str:
        if self.plan is not None:
            return "One's own curriculum" if self.rule == "as published" else f"{self.rule} shares of one's own domains"
        return self.preset if self.rule == "as published" else f"{self.rule} shares of the domains of {self.preset}"

    def _worth(self, spent: Mapping[str, float], passes: Mapping[str, float]) -> tuple[Headline, ...]:
        read = Headline("Tokens", show_count(self.tokens), f"{len(spent)} domains, {_count(len(self.curriculum.phases))}")  # fmt: skip
        if not passes:
            return (read, Headline("Repeats", "not known", "no pool is published; give `available`", "warn"))
        part = sum(spent[name] for name in passes)
        worth = sum(effective_tokens(spent[name], self.pool[name]) for name in passes)
        worst = max(passes, key=lambda name: passes[name])
        over = passes[worst] > self.max_epochs * (1 + 1e-9)
        warn = over or passes[worst] > WORTHWHILE_EPOCHS * (1 + 1e-9)
        limit = "over the cap" if over else "beyond 4 repeats fade" if warn else "within the cap"
        return (
            read,
            Headline("Worth in new tokens", show_count(worth), f"{show.share(worth / part)} of {show_count(part)} whose pool is known"),
            Headline("Most repeated", f"{passes[worst]:.2g} passes", f"{worst}, {limit}", "bad" if over else "warn" if warn else "good"),
        )  # fmt: skip

    def _models(self, spent: Mapping[str, float]) -> tuple[Headline, ...]:
        """The synthetic share of what is read, where there is any."""
        read = sum(spent.get(name, 0.0) * one.share for name, one in self.written.items()) / self.tokens
        over = bool(self._breach(spent))
        note = f"{'over' if over else 'within'} the caps: {show.share(self.caps.corpus)}, generation {self.caps.depth}"
        return (Headline("Synthetic", show.share(read), note, "bad" if over else "good"),) if read else ()

    def _breach(self, spent: Mapping[str, float]) -> str:
        return self.caps.against({name: tokens / self.tokens for name, tokens in spent.items()}, self.written)

    def _acquired(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Domain → US dollars for the unique tokens that are read of it."""
        return {name: price * min(spent[name], self.pool.get(name, spent[name])) / 1e9 for name, price in self.source_dollars.items() if name in spent}  # fmt: skip

    def _repeats(self, passes: Mapping[str, float]) -> dict[str, Frame]:
        if not passes:
            return {}
        order = sorted(passes, key=lambda name: -passes[name])
        values = [passes[name] for name in order]
        frame: Frame = {
            "domain": order,
            "epochs": values,
            "worth": [effective_tokens(value, 1.0) for value in values],
            "over": [value > self.max_epochs * (1 + 1e-9) for value in values],
        }
        return {"epochs": charts.sample.brief(frame), "cap": {"epochs": [self.max_epochs]}}

    def _effect(self) -> dict[str, Frame]:
        """Target → change of loss against natural proportions (or uniform ones, where no pool is known)."""
        if self.law is None or not set(self.curriculum.domains) <= set(self.law.domains):
            return {}
        told, base = (self.law.predict(weights) for weights in (self.curriculum.mean().weights, self._baseline()))
        frame: Frame = {"label": list(told), "value": [told[name] - base[name] for name in told]}
        return {"effect": charts.sample.brief(frame)}

    def _baseline(self) -> dict[str, float]:
        known = {name: self.pool.get(name, 0.0) for name in self.curriculum.domains}
        return natural(known) if all(known.values()) else natural(dict.fromkeys(known, 1.0))

    def _table(self, spent: Mapping[str, float], passes: Mapping[str, float], plan: Estimate) -> Table:
        columns = (
            "domain",
            "share",
            "tokens",
            "unique",
            "passes",
            "worth",
            "training",
            "source",
            *(("card",) if self.badges else ()),
        )
        bought, dollars = self._acquired(spent), plan.dollars.mid if plan.dollars else None
        rows = []
        for name, tokens in sorted(spent.items(), key=lambda item: -item[1]):
            pool = self.pool.get(name)
            known = (show_count(pool), f"{passes[name]:.2f}", show_count(effective_tokens(tokens, pool))) if pool else (show.NONE,) * 3  # fmt: skip
            cost = show.dollars(None if dollars is None else dollars * tokens / self.tokens)
            rows.append((name, show.share(tokens / self.tokens), show_count(tokens), *known, cost, show.dollars(bought.get(name)), *((" · ".join(self.badges.get(name, (show.NONE,))),) if self.badges else ())))  # fmt: skip
        words = "Worth: passes beyond the first count less (arXiv 2305.16264, applied to each domain). Training: its part of the run. Source: what its unique tokens cost."
        return Table("What is taken of each domain", columns, tuple(rows), words)

    def _notes(self, spent: Mapping[str, float], passes: Mapping[str, float], effect: bool) -> tuple[str, ...]:
        notes = [breach] if (breach := self._breach(spent)) else []
        notes += [] if self.rule != "as published" else [notice for row in self._rows for notice in row.notices]
        notes += [row.note for row in self._rows if row.note]
        for name, count in passes.items():
            if count > WORTHWHILE_EPOCHS * (1 + 1e-9):
                notes.append(f"{name} is read {count:.3g} times: beyond {WORTHWHILE_EPOCHS:g}, repeats are worth visibly less than new data (arXiv 2305.16264)")  # fmt: skip
        if missing := [name for name in spent if name not in passes]:
            few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            notes.append(f"how many tokens there are of {few} is not known, so neither is how often they are read")
        if self.law is not None:
            notes.append(self._law_words(effect))
        return tuple(dict.fromkeys(notes))

    def _law_words(self, effect: bool) -> str:
        law = self.law
        assert law is not None
        if not effect:
            return f"the law was fitted on {', '.join(law.domains)}, so it says nothing of this mixture"
        weights = law.array(self.curriculum.mean().weights)
        beyond = law.beyond(weights) if law.highest else ()
        far = f"; no proxy came near this share of {', '.join(beyond)}" if beyond else ""
        return f"predicted from {law.runs} proxies with constant mixtures{far}"


def held(plan: Curriculum, pool: Mapping[str, float], max_epochs: float) -> Curriculum:
    """The curriculum with each phase brought inside what earlier phases leave of every pool times `max_epochs`.

    A domain without a known pool takes what others cannot. Raises `LabError` where a phase cannot be filled.
    """
    left = {name: max_epochs * tokens for name, tokens in pool.items()}
    phases = []
    for phase in plan.phases:
        high = {name: min(1.0, max(0.0, left[name]) / phase.tokens) for name in phase.mixture.weights if name in left}
        shares = constrain(phase.mixture.weights, high=high)
        for name in high:
            left[name] -= shares[name] * phase.tokens
        kept = {name: share for name, share in shares.items() if share > 0}
        phases.append(Phase(mixture=Mixture(weights=kept, max_epochs=max_epochs), tokens=phase.tokens))
    return Curriculum(phases=tuple(phases))


FIGURES: tuple[Figure, ...] = (mixture_over_training(), epochs_by_domain())
EFFECT = charts.shares("effect", "Predicted effect", "Change of each target's loss against natural proportions (uniform ones where no pool is known), by the law learned from proxies; lower is better.", "change of loss")  # fmt: skip


def _count(phases: int) -> str:
    return "one mixture throughout" if phases == 1 else f"{phases} mixtures in order"


def _money(plan: Estimate, bought: Mapping[str, float]) -> Headline:
    sources = (
        f"and {show.dollars(sum(bought.values()))} for sources" if bought else "training; sources cost nothing here"
    )
    return Headline("Money", show.dollars(plan.dollars.mid if plan.dollars else None), sources)


def _stacked(plan: Curriculum) -> Frame:
    """Shares at each phase's first token and at the end, the largest domains first and the smallest together."""
    spent = plan.domain_tokens()
    named = labels(sorted(spent, key=lambda name: -spent[name]))
    rows = [(token, *row) for token in plan.starts for row in stack(plan.at(token), named)]
    return charts.sample.brief(dict(zip(("tokens", "domain", "share", "order"), map(list, zip(*rows, strict=True)), strict=True)))  # fmt: skip
