"""The mid-training planner: what the same tokens buy as annealing, as a new domain, or as longer sequences."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.charts.sample import rounded
from lablib.explorers import show
from lablib.explorers.budget import BudgetPlan
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.plan import Estimate, estimate
from lablib.runs import Run
from lablib.specs import Cluster, LabError, Midtrain, Mixture, Pretrain, Ref
from lablib.specs.further import anneal, continue_on, extend
from lablib.specs.midtrain import ANNEAL, REPLAY, MidtrainKind
from lablib.specs.posttrain import ModelInput
from lablib.specs.units import show_count
from lablib.train.schedule import learning_rate

LENGTHS = (1, 2, 4, 8, 16, 32)
"""Times the parent's length that the charts of length try."""
POINTS = 61
"""Of the learning rate's curve, each stage."""
KINDS: tuple[MidtrainKind, ...] = ("anneal", "continue", "extend")


def _usual() -> Pretrain:
    return BudgetPlan(model="llama-3-8b", seq_len=8192).recipe.replace(
        mixture=Mixture(weights={"web": 0.8, "code": 0.2})
    )


class MidtrainPlan(Explorer):
    """The last share of a budget on a trained model; `parent` is the recipe that made it and `start` the model itself."""

    kind: MidtrainKind = knob("anneal", "What for")
    share: float = knob(ANNEAL, "Share of all tokens", 0.01, 0.5, step=0.01)
    replay: float = knob(REPLAY, "Replay of the old mixture", 0, 0.5, step=0.05)
    longer: Literal[2, 4, 8, 16, 32] = knob(4, "Times the length")
    method: Literal["yarn", "ntk", "linear"] = knob("yarn", "Positions stretched by")
    cp: Literal[1, 2, 4, 8, 16] = knob(1, "Context parallel, where longer")
    parent: Pretrain = Field(default_factory=_usual)
    start: ModelInput = "the-model"
    better: Mixture = Mixture(weights={"papers": 0.4, "code": 0.3, "web": 0.3})
    """What is read while annealing."""
    domain: Mixture = Mixture(weights={"domain": 1.0})
    """The new domain."""
    data: Ref | str | None = None
    """What holds the new domain; None: the parent's data."""
    from_step: int | None = None
    """The checkpoint that annealing goes on from; None: the parent's model."""
    cluster: Cluster = Field(default_factory=lambda: BudgetPlan().cluster)

    @classmethod
    def of(cls, run: Run, cluster: Cluster, **inputs: Any) -> Self:
        """The planner for a pretraining run's model on `cluster`; `inputs` are other fields. Raises `LabError` for another stage."""
        if not isinstance(run.recipe, Pretrain):
            raise LabError(f"run {run.id} is a {run.recipe.stage} run; mid-training goes on from a pretraining")
        return cls(parent=run.recipe, start=run.model, cluster=cluster, **inputs)

    @property
    def recipe(self) -> Midtrain:
        """The mid-training that the knobs describe. Raises `LabError` where the parent cannot go on so."""
        return self.of_kind(self.kind)

    def of_kind(self, kind: MidtrainKind) -> Midtrain:
        """The same tokens spent on `kind`."""
        if kind == "anneal":
            return anneal(self.parent, self.start, self.better, self.share, from_step=self.from_step)
        if kind == "continue":
            return continue_on(
                self.parent, self.start, self.data or self.parent.data, self.domain, self._tokens, self.replay
            )
        return self._longer(self.longer)

    def _longer(self, times: int) -> Midtrain:
        own, length = self.parent.parallelism, times * self.parent.seq_len
        if own.dp_shard % self.cp:
            raise LabError(
                f"cp={self.cp} does not divide the parent's dp_shard={own.dp_shard}, whose ranks it would take; lower it"
            )
        fewer = max(1, own.micro_batch_size // times)
        layout = own.replace(cp=own.cp * self.cp, dp_shard=own.dp_shard // self.cp, micro_batch_size=fewer)
        return extend(self.parent, self.start, length, self.method, tokens=self._tokens, parallelism=layout)

    @property
    def _tokens(self) -> int:
        return max(1, round(self.parent.tokens * self.share / (1 - self.share)))

    @cached_property
    def _plans(self) -> dict[MidtrainKind, Midtrain | LabError]:
        """Each kind's recipe, or why this parent has none."""
        found: dict[MidtrainKind, Midtrain | LabError] = {}
        for kind in KINDS:
            try:
                found[kind] = self.of_kind(kind)
            except LabError as error:
                found[kind] = error
        return found

    def view(self) -> View:
        """Tokens, time, money and memory, the three uses side by side, the rate, what is read, and the price of length."""
        recipe = self.recipe
        plan = estimate(recipe, self.cluster)
        return View(
            title=f"{TITLES[self.kind]}: {show_count(recipe.tokens)} tokens",
            subtitle=f"after {show_count(self._before)} tokens · {show_count(plan.params.total)} parameters · {recipe.parallelism}",
            headlines=self._headlines(recipe, plan),
            charts=FIGURES,
            frames={"rates": self._rates(recipe), **_reads(plan), **self._lengths()},
            tables=(self._uses(),),
            notes=(*plan.warnings, *NOTES[self.kind]),
        )

    @property
    def _before(self) -> int:
        from_step = self.from_step if self.kind == "anneal" else None
        return self.parent.cut.before(from_step) if from_step else self.parent.cut.tokens

    def _headlines(self, recipe: Midtrain, plan: Estimate) -> tuple[Headline, ...]:
        parent = estimate(self.parent, self.cluster)
        fits = f"{'fits' if plan.fits else 'does not fit'} in {show.gib(plan.memory.capacity_gib)}"
        return (
            Headline("Of all tokens", show.share(recipe.tokens / (recipe.tokens + self._before)), f"{recipe.steps:,} steps"),
            Headline("Time", show.seconds(plan.days.mid * 86400), f"{show.seconds(parent.days.mid * 86400)} for the parent"),
            Headline("Money", *_money(plan, parent)),
            Headline("Memory", show.gib(plan.memory.peak_gib), fits, "plain" if plan.fits else "bad"),
            Headline("Throughput", show.rate(plan.tokens_per_second_per_gpu), f"{show.rate(parent.tokens_per_second_per_gpu)} for the parent"),
        )  # fmt: skip

    def _uses(self) -> Table:
        """A row a kind."""
        rows = []
        for kind, recipe in self._plans.items():
            if isinstance(recipe, LabError):
                rows.append((kind, str(recipe), *[show.NONE] * (len(COLUMNS) - 2)))
                continue
            plan = estimate(recipe, self.cluster)
            rows.append(
                (
                    kind,
                    show_count(recipe.tokens),
                    f"{recipe.optimizer.learning_rate:.2g}",
                    f"{recipe.seq_len:,}",
                    show.seconds(plan.step_seconds),
                    f"{show.gib(plan.memory.peak_gib)}{'' if plan.fits else ', does not fit'}",
                    show.seconds(plan.days.mid * 86400),
                    show.dollars(plan.dollars.mid if plan.dollars else None),
                )
            )
        return Table("The same share, spent three ways", COLUMNS, tuple(rows), "Which is best is measured, not planned: run each and compare on old text, new text and long text.")  # fmt: skip

    def _rates(self, recipe: Midtrain) -> Frame:
        """Learning rate over tokens: the parent's up to where this one goes on, then its own."""
        made: Frame = {"tokens": [], "rate": [], "stage": []}
        for stage, one, begin, upto in (("before", self.parent, 0, self._before), (recipe.kind, recipe, self._before, recipe.tokens)):  # fmt: skip
            for point in range(POINTS):
                done = upto * point / (POINTS - 1)
                step = min(one.steps - 1, int(done / one.cut.tokens * one.steps))
                value = learning_rate(step, one.steps, one.optimizer.learning_rate, one.schedule)
                for column, cell in zip(made, (rounded(begin + done), rounded(value), stage), strict=True):
                    made[column].append(cell)
        return made

    def _lengths(self) -> dict[str, Frame]:
        """Speed and memory of longer sequences, as far as the model can be stretched and planned."""
        rate: Frame = {"x": [], "y": []}
        held: Frame = {"x": [], "y": []}
        for times in LENGTHS:
            try:
                one = self.parent if times == 1 else self._longer(times)
            except LabError:
                break  # a model without rotary positions: the curves end at its own length
            plan = estimate(one, self.cluster)
            for frame, value in ((rate, plan.tokens_per_second_per_gpu), (held, plan.memory.peak_gib)):
                frame["x"].append(one.seq_len)
                frame["y"].append(rounded(value))
        length = self.parent.seq_len * (self.longer if self.kind == "extend" else 1)
        here = {
            f"{name}_here": {"x": [length], "y": [frame["y"][frame["x"].index(length)]]}
            for name, frame in (("length_rate", rate), ("length_memory", held))
            if length in frame["x"]
        }
        return {"length_rate": rate, "length_memory": held, **here}


def _money(plan: Estimate, parent: Estimate) -> tuple[str, str]:
    if plan.dollars is None or parent.dollars is None:
        return show.NONE, "no price is known"
    return show.dollars(plan.dollars.mid), f"{show.dollars(parent.dollars.mid)} for the parent"


def _reads(plan: Estimate) -> dict[str, Frame]:
    return {
        "reads": {"label": [one.domain for one in plan.reads], "value": [rounded(one.tokens) for one in plan.reads]}
    }


COLUMNS = ("use", "tokens", "peak rate", "sequence", "step", "memory", "time", "money")
TITLES = {"anneal": "Annealing", "continue": "A new domain", "extend": "Longer sequences"}
NOTES = {
    "anneal": ("Begin where the rate is still at its peak: a checkpoint of the stable phase, not a model whose rate has decayed.",),
    "continue": ("How much is forgotten is not foretold: it depends on the domain and on the room that the model has left (arXiv 2502.06042 finds little "
                 "from 1 % of old text on; the guide says 10 to 30 %). A run with replay measures both: `loss_new` and `loss_old`.",),
    "extend": ("Attention's part grows with the length, the rest does not. Compare before and after on a needle, and the loss on short text too.",),
}  # fmt: skip
FIGURES: tuple[Figure, ...] = (
    charts.rate_over_tokens(),
    charts.shares("reads", "What is read", "Tokens of each domain.", "tokens"),
    charts.sweep("length_rate", "Speed by length", "Tokens a second of one accelerator over the sequence length, at the same tokens a step. Orange: the plan.",
                 "tokens of a sequence", "tokens/s"),
    charts.sweep("length_memory", "Memory by length", "Peak memory of one accelerator over the sequence length. Orange: the plan.", "tokens of a sequence", "GiB"),
)  # fmt: skip
