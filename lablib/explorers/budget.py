"""The budget planner: what a model, a number of tokens and a cluster come to, before anything is started."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.explorers import hyper, show
from lablib.explorers.explorer import Explorer, catalogued, knob
from lablib.explorers.planned import Span
from lablib.explorers.view import Headline, Table, View
from lablib.plan import Estimate, Range, estimate
from lablib.plan.scaling import suggested
from lablib.specs import Balance, Cluster, LabError, ModelSpec, Parallelism, Pretrain, catalog
from lablib.specs.fabric import FABRICS
from lablib.specs.recipe import Optimizer, OptimizerKind
from lablib.specs.units import show_count, show_flops

MODELS = tuple(catalog.models)
ACCELERATORS = tuple(catalog.accelerators)
NODE = 8
"""Accelerators of a node, as in every accelerator listed with a node-wide link."""


class BudgetPlan(Explorer):
    """Pretraining one catalogue model: every input has a knob, and the state is a recipe and a cluster."""

    model: str = knob("llama-3.1-8b", "Model", choices=MODELS)
    tokens: int = knob(1_000_000_000_000, "Tokens", 1_000_000_000, 20_000_000_000_000, log=True)
    accelerator: str = knob("h100-sxm", "Accelerator", choices=ACCELERATORS)
    gpus: int = knob(256, "Accelerators", 1, 16384, powers_of_two=True)
    price: float = knob(0.0, "Price (0: as listed)", 0, 15, step=0.1, unit="$/h each")
    tensor_parallel: Literal[1, 2, 4, 8] = knob(1, "Tensor parallel")
    pipeline_parallel: Literal[1, 2, 4, 8, 16] = knob(1, "Pipeline stages")
    context_parallel: Literal[1, 2, 4, 8] = knob(1, "Context parallel")
    expert_parallel: Literal[1, 2, 4, 8, 16, 32, 64] = knob(1, "Expert parallel")
    replicas: int = knob(1, "Replicas of the shards", 1, 256, powers_of_two=True)
    micro_batch: int = knob(1, "Sequences at a time", 1, 64, powers_of_two=True)
    seq_len: Literal[1024, 2048, 4096, 8192, 16384, 32768] = knob(4096, "Sequence length")
    batch_tokens: int = knob(4_194_304, "Tokens a step", 65_536, 67_108_864, powers_of_two=True)
    precision: Literal["bf16", "fp8", "mxfp8", "nvfp4", "fp32"] = knob("bf16", "Precision")
    recompute: Literal["none", "selective", "full"] = knob("selective", "Recompute activations")
    cross_entropy: Literal["full", "fused", "chunked"] = knob("full", "Cross entropy")
    offload: Literal["none", "optimizer", "activations", "all"] = knob("none", "Keep in host memory")
    optimizer: OptimizerKind = knob("adamw", "Optimiser")
    compile: bool = knob(True, "Compile", choices=(True, False))
    fabric: str = knob("own", "Network", choices=("own", *FABRICS))

    _known = field_validator("model", "accelerator")(catalogued)

    @property
    def cluster(self) -> Cluster:
        """The machines that the knobs describe, at the knob's price, or at the listed ones where it is zero."""
        return self._cluster(self.gpus)

    def _cluster(self, gpus: int) -> Cluster:
        return Cluster(
            accelerator=catalog.accelerators[self.accelerator],
            nodes=-(-gpus // NODE),
            gpus_per_node=min(gpus, NODE),
            fabric=None if self.fabric == "own" else self.fabric,
            **({"price_per_gpu_hour": self.price, "price_source": "chosen in the planner"} if self.price else {}),
        )

    @property
    def recipe(self) -> Pretrain:
        """The pretraining that the knobs describe, at the learning rate that published laws suggest. Raises `LabError` where
        they do not go together."""
        return suggested(self._recipe(self.gpus), batch=False)

    def _recipe(self, gpus: int) -> Pretrain:
        fixed = self.tensor_parallel * self.pipeline_parallel * self.context_parallel * self.replicas
        if gpus % fixed:
            raise LabError(f"tensor × pipeline × context parallel × replicas = {fixed} does not divide {gpus} accelerators; lower one of them")  # fmt: skip
        layout = Parallelism(
            dp_replicate=self.replicas,
            dp_shard=gpus // fixed,
            ep=self.expert_parallel,
            tp=self.tensor_parallel,
            pp=self.pipeline_parallel,
            cp=self.context_parallel,
            micro_batch_size=self.micro_batch,
        )
        round_tokens = layout.dp * layout.micro_batch_size * self.seq_len
        if round_tokens > self.batch_tokens * 1.05:
            raise LabError(
                f"A step of {show_count(self.batch_tokens)} tokens is less than one round of all ranks, {show_count(round_tokens)}: "
                "raise tokens a step, or lower accelerators, sequences at a time or sequence length"
            )
        spec: ModelSpec = catalog.models[self.model]
        return Pretrain(
            name="planned",
            model=spec.reaching(self.seq_len),
            tokens=self.tokens,
            seq_len=self.seq_len,
            batch_tokens=self.batch_tokens,
            parallelism=layout,
            precision=self.precision,
            recompute=self.recompute,
            cross_entropy=self.cross_entropy,
            offload=self.offload,
            optimizer=Optimizer(kind=self.optimizer),
            compile=self.compile and not spec.traits.recurrent,
            document_mask=not spec.recurrent,
            balance=Balance.usual(spec),
        )

    def view(self) -> View:
        """Headlines, memory of one device, the parts of a step, time and money over the number of accelerators, and the
        laws of learning rate and batch."""
        recipe, cluster = self.recipe, self.cluster
        plan = estimate(recipe, cluster)
        return View(
            title=f"{self.model} on {show_count(self.tokens)} tokens",
            subtitle=f"{show_count(plan.params.total)} parameters, {show_count(self.tokens / plan.params.total)} tokens each · {recipe.parallelism}",
            headlines=_headlines(plan),
            charts=(*FIGURES, *hyper.FIGURES),
            frames={**_memory(plan), **_step(plan), **self._sweep(), **hyper.frames(recipe)},
            tables=(hyper.table(recipe), _table(plan)),
            notes=tuple(plan.warnings),
        )

    def _sweep(self) -> dict[str, Frame]:
        """Days and dollars for other numbers of accelerators, where the layout still works."""
        days: Frame = {"x": [], "y": []}
        dollars: Frame = {"x": [], "y": []}
        for gpus in (2**power for power in range(15)):
            try:
                plan = estimate(self._recipe(gpus), self._cluster(gpus))
            except LabError:
                continue  # this many ranks do not fit the batch: the curve ends there
            for frame, value in ((days, plan.days.mid), (dollars, plan.dollars.mid if plan.dollars else 0.0)):
                frame["x"].append(gpus)
                frame["y"].append(charts.sample.rounded(value))
        here = {
            name: {"x": [self.gpus], "y": [frame["y"][frame["x"].index(self.gpus)]]}
            for name, frame in (("days_here", days), ("dollars_here", dollars))
            if self.gpus in frame["x"]
        }
        return {"days": days, "dollars": dollars, **here}


FIGURES: tuple[Figure, ...] = (
    charts.memory_parts(),
    charts.shares("step", "Where a step's time goes", "Seconds of one optimiser step by cause.", "seconds"),
    charts.sweep(
        "days",
        "Days",
        "Wall time over the number of accelerators, all else equal. Orange: the plan.",
        "accelerators",
        "days",
    ),
    charts.sweep(
        "dollars",
        "Money",
        "Cost over the number of accelerators at the same price. Orange: the plan.",
        "accelerators",
        "US dollars",
        log=False,
    ),
)


def _span(value: Range) -> Span:
    return Span(value.low, value.mid, value.high)


def _between(value: Range, measure: str, scale: float = 1.0) -> str:
    low, high = (show.SHOW[measure](end * scale) for end in (value.low, value.high))
    return f"{low} to {high}"


def _headlines(plan: Estimate) -> tuple[Headline, ...]:
    memory = plan.memory
    fit = Headline(
        "Memory of one device",
        show.gib(memory.peak_gib),
        f"{'fits' if plan.fits else 'does not fit'} in {show.gib(memory.capacity_gib)}",
        "plain" if plan.fits else "bad",
    )
    money = plan.dollars
    return (
        Headline("Compute", show_flops(plan.flops.total), f"{show_flops(plan.flops.per_token)} a token"),
        Headline("Time", show.seconds(plan.days.mid * 86400), _between(plan.days, "seconds", 86400)),
        Headline(
            "Money",
            show.dollars(money.mid if money else None),
            _between(money, "dollars") if money else "no price is known",
        ),
        Headline(
            "Accelerator-hours",
            show_count(plan.gpu_hours.mid),
            f"{show_count(plan.gpu_hours.low)} to {show_count(plan.gpu_hours.high)}",
        ),
        fit,
        Headline(
            "MFU",
            show.share(plan.mfu),
            "model FLOP over the data-sheet peak" if plan.mfu else "no published peak for this precision",
        ),
    )


def _memory(plan: Estimate) -> dict[str, Frame]:
    parts = {name: value for name, value in plan.memory.parts.items() if value > 0}
    frame = {
        "part": list(parts),
        "gib": [charts.sample.rounded(v) for v in parts.values()],
        "order": list(range(len(parts))),
    }
    return {"parts": frame, "limit": {"gib": [plan.memory.capacity_gib]}}


def _step(plan: Estimate) -> dict[str, Frame]:
    parts = sorted(plan.step_parts.items(), key=lambda part: -part[1])
    return {
        "step": {"label": [name for name, _ in parts], "value": [charts.sample.rounded(value) for _, value in parts]}
    }


def _table(plan: Estimate) -> Table:
    rows = tuple((entry.name, entry.value, entry.formula, entry.inputs, entry.source) for entry in plan.ledger)
    return Table("How each number came about", ("number", "value", "formula", "inputs", "source"), rows)
