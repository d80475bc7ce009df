"""The small planner: a model that one machine pretrains in minutes, with the loss curve that it is expected to take."""

from __future__ import annotations

from typing import Literal

from lablib import charts
from lablib.explorers import forecast as bands
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.planned import Span
from lablib.explorers.view import Headline, View
from lablib.plan import count_params, estimate, forecast, scaling
from lablib.specs import Cluster, ModelSpec, Optimizer, Parallelism, Pretrain, Ref, Schedule
from lablib.specs.units import show_count, show_seconds

HEAD = 64
"""Features of one attention head; widths below are multiples of two heads, so that key/value heads can be half."""


class MiniPlan(Explorer):
    """Pretraining a small Qwen3-style model on `cluster`, which is this machine unless another is given."""

    layers: Literal[2, 4, 6, 8, 12] = knob(4, "Layers")
    hidden: Literal[128, 256, 384, 512, 768] = knob(128, "Width")
    tokens: int = knob(1_000_000, "Tokens", 20_000, 500_000_000, log=True)
    batch_tokens: int = knob(4096, "Tokens a step", 1024, 262_144, powers_of_two=True)
    learning_rate: float = knob(3e-3, "Learning rate", 1e-4, 1e-2, log=True)
    cluster: Cluster
    data: Ref | str = "core"
    """What is read; a knob cannot change it."""
    vocab: int = 4096
    threads: int = 1

    @property
    def recipe(self) -> Pretrain:
        """The pretraining that the knobs describe."""
        return Pretrain(
            name="pretrain",
            model=self._model(),
            data=self.data,
            tokens=self.tokens,
            seq_len=256,
            batch_tokens=self.batch_tokens,
            optimizer=Optimizer(learning_rate=self.learning_rate),
            schedule=Schedule(kind="wsd", warmup=0.05, decay=0.3),
            eval_tokens=16_384,
            parallelism=Parallelism(micro_batch_size=min(16, self.batch_tokens // 256)),
            precision="fp32",
            threads=self.threads,
        )

    def _model(self) -> ModelSpec:
        return ModelSpec(
            family="qwen3",
            layers=self.layers,
            hidden=self.hidden,
            heads=self.hidden // HEAD,
            kv_heads=self.hidden // HEAD // 2,
            head_dim=HEAD,
            ffn=3 * self.hidden,
            vocab=self.vocab,
            tied_embeddings=True,
            max_seq_len=1024,
        )

    def view(self) -> View:
        """Time, memory, money and expected loss, the curve and what fills memory."""
        recipe = self.recipe
        plan, curve = estimate(recipe, self.cluster), forecast(recipe)
        band = {} if curve is None else bands.band(curve.model_dump(mode="json"))
        size = count_params(recipe.model).total
        parts = {name: value for name, value in plan.memory.parts.items() if value > 0}
        memory: charts.Frame = {"part": list(parts), "gib": list(parts.values()), "order": list(range(len(parts)))}
        figures = (charts.loss(), charts.memory_parts()) if band else (charts.memory_parts(),)
        return View(
            title=f"{show_count(size)} parameters on {show_count(self.tokens)} tokens",
            subtitle=f"{recipe.steps:,} steps of {show_count(recipe.step_tokens)} tokens · {self.cluster.accelerator.name}",
            headlines=(
                Headline("Time", show_seconds(plan.days.mid * 86400), _range(plan.days, "seconds", 86400)),
                Headline("Expected loss", *_loss(band)),
                Headline("Throughput", show.rate(plan.tokens_per_second_per_gpu), "tokens of one process"),
                Headline(
                    "Memory",
                    show.gib(plan.memory.peak_gib),
                    "fits" if plan.fits else "does not fit",
                    "plain" if plan.fits else "bad",
                ),
                Headline(
                    "Money",
                    *(
                        (show.dollars(plan.dollars.mid), _range(plan.dollars, "dollars"))
                        if plan.dollars
                        else ("none", "no price given")
                    ),
                ),
            ),
            charts=figures,
            frames={"band": band, "parts": memory, "limit": {"gib": [plan.memory.capacity_gib]}},
            notes=(*plan.warnings, *((f"Forecast: {curve.basis}",) if curve else ()), scaling.words(recipe)),
        )


def _range(value: object, measure: str, scale: float = 1.0) -> str:
    low, high = (show.SHOW[measure](getattr(value, end) * scale) for end in ("low", "high"))
    return f"{low} to {high}"


def _loss(band: charts.Frame) -> tuple[str, str]:
    if not band:
        return show.NONE, "no law covers this recipe"
    end = Span(band["low"][-1], band["mid"][-1], band["high"][-1])
    return show.loss(end.mid), f"{show.loss(end.low)} to {show.loss(end.high)} at the last step"
