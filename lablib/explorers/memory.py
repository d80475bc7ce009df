"""The memory planner: what one accelerator holds, stage by stage and moment by moment, and what each switch changes."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, catalogued, knob
from lablib.explorers.switches import switches
from lablib.explorers.view import Headline, Table, View
from lablib.plan import Estimate, estimate
from lablib.plan import memory as plan_memory
from lablib.plan.efficiency import of
from lablib.plan.pretraining import job
from lablib.specs import Balance, Cluster, Parallelism, Pretrain, catalog
from lablib.specs.recipe import Optimizer, OptimizerKind
from lablib.specs.units import show_count

MODELS = tuple(catalog.models)
ACCELERATORS = tuple(name for name, card in catalog.accelerators.items() if card.kind == "gpu")


class MemoryPlan(Explorer):
    """Memory of one pretraining step: every input has a knob, and the state is a recipe and a cluster."""

    model: str = knob("llama-3.1-8b", "Model", choices=MODELS)
    accelerator: str = knob("h100-sxm", "Accelerator", choices=ACCELERATORS)
    dp_shard: int = knob(8, "FSDP shards", 1, 4096, powers_of_two=True)
    dp_replicate: int = knob(1, "Replicas of the shards", 1, 256, powers_of_two=True)
    tp: Literal[1, 2, 4, 8, 16] = knob(1, "Tensor parallel")
    pp: Literal[1, 2, 4, 8, 16, 32] = knob(1, "Pipeline stages")
    cp: Literal[1, 2, 4, 8, 16] = knob(1, "Context parallel")
    ep: Literal[1, 2, 4, 8, 16, 32, 64] = knob(1, "Expert parallel")
    micro_batch: int = knob(1, "Sequences at a time", 1, 64, powers_of_two=True)
    seq_len: int = knob(8192, "Longest sequence", 512, 262_144, powers_of_two=True)
    recompute: Literal["none", "attention", "selective", "selective-op", "selective-layer", "budget", "full"] = knob(
        "selective", "Recompute activations"
    )
    cross_entropy: Literal["full", "fused", "chunked"] = knob("full", "Cross entropy")
    offload: Literal["none", "optimizer", "activations", "all"] = knob("none", "Keep in host memory")
    optimizer: OptimizerKind = knob("adamw", "Optimiser")
    compile: bool = knob(True, "Compile", choices=(True, False))
    precision: Literal["bf16", "fp8", "mxfp8", "nvfp4", "fp32"] = knob("bf16", "Precision")

    _known = field_validator("model", "accelerator")(catalogued)

    @property
    def cluster(self) -> Cluster:
        """Nodes of eight that hold the layout."""
        gpus = self.dp_shard * self.dp_replicate * self.tp * self.pp * self.cp
        return Cluster(accelerator=self.accelerator, nodes=-(-gpus // 8), gpus_per_node=min(8, gpus))

    @property
    def recipe(self) -> Pretrain:
        """A pretraining of a hundred steps with two micro-batches a stage. Raises `LabError` where it does not go together."""
        spec = catalog.models[self.model]
        layout = Parallelism(dp_shard=self.dp_shard, dp_replicate=self.dp_replicate, tp=self.tp, pp=self.pp, cp=self.cp, ep=self.ep,
                             micro_batch_size=self.micro_batch)  # fmt: skip
        batch = layout.dp * self.micro_batch * self.seq_len * (2 * self.pp)
        return Pretrain(
            name="planned",
            model=spec.reaching(self.seq_len),
            tokens=100 * batch,
            seq_len=self.seq_len,
            batch_tokens=batch,
            parallelism=layout,
            recompute=self.recompute,
            cross_entropy=self.cross_entropy,
            offload=self.offload,
            optimizer=Optimizer(kind=self.optimizer),
            compile=self.compile and not spec.traits.recurrent,
            precision=self.precision,
            document_mask=not spec.recurrent,
            balance=Balance.usual(spec),
        )

    def view(self) -> View:
        """The peak by part, every stage's moments, and what each switch would change."""
        plan = estimate(self.recipe, self.cluster)
        return View(
            title=f"Memory of {self.model} on {self.accelerator}",
            subtitle=f"{show_count(plan.params.total)} parameters · {self.recipe.parallelism}",
            headlines=_headlines(plan),
            charts=FIGURES,
            frames={**_parts(plan), "moments": self._moments()},
            tables=(switches(self.recipe, self.cluster), self._ranks()),
            notes=tuple(plan.warnings),
        )

    def _profile(self) -> dict[tuple[int, str], float]:
        table = plan_memory.profile(job(self.recipe), of(self.cluster))
        return {place: sum(parts.values()) for place, parts in table.items()}

    def _moments(self) -> Frame:
        """The fullest stage at each moment of a step."""
        found = self._profile()
        peaks = {moment: max(size for (_, at), size in found.items() if at == moment) for moment in plan_memory.MOMENTS}
        return {"label": list(peaks), "value": [charts.sample.rounded(size) for size in peaks.values()]}

    def _ranks(self) -> Table:
        found = self._profile()
        stages = sorted({stage for stage, _ in found})
        rows = tuple(
            (str(stage), *(f"{found[stage, moment]:.1f}" for moment in plan_memory.MOMENTS)) for stage in stages
        )
        return Table("GiB of each pipeline stage at each moment", ("stage", *plan_memory.MOMENTS), rows)


FIGURES: tuple[Figure, ...] = (
    charts.memory_parts(),
    charts.shares("moments", "When memory is fullest", "GiB of the fullest stage at each moment of a step.", "GiB"),
)


def _headlines(plan: Estimate) -> tuple[Headline, ...]:
    used = plan.memory
    fits = "fits" if plan.fits else "does not fit"
    place = f"stage {used.pipeline_rank}, {used.moment}"
    return (
        Headline("Peak memory", show.gib(used.peak_gib), f"{fits} in {show.gib(used.capacity_gib)}", "plain" if plan.fits else "bad"),
        Headline("Where and when", place, "the fullest stage at its fullest moment"),
        Headline("Free", show.share(max(0.0, used.margin)), f"at least {show.share(plan_memory.MARGIN)} must be"),
        Headline("Host memory", show.gib(used.host_gib), "of each process, for what is offloaded"),
        Headline("Speed", show.rate(plan.tokens_per_second_per_gpu), "each accelerator"),
    )  # fmt: skip


def _parts(plan: Estimate) -> dict[str, Frame]:
    parts = {name: size for name, size in plan.memory.parts.items() if size > 0}
    sizes = [charts.sample.rounded(size) for size in parts.values()]
    return {
        "parts": {"part": list(parts), "gib": sizes, "order": list(range(len(parts)))},
        "limit": {"gib": [plan.memory.capacity_gib]},
    }
