"""The layout search: every way to lay a step over a cluster, and why the slower ones lose."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import field_validator

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, catalogued, knob
from lablib.explorers.view import Headline, Table, View
from lablib.plan.found import Found
from lablib.plan.search import find_layouts
from lablib.specs import Cluster, Pretrain, catalog

ACCELERATORS = tuple(name for name, card in catalog.accelerators.items() if card.kind == "gpu")
FASTEST = 40
"""Candidates of each kind that are drawn."""
ROWS = 12


class LayoutPlan(Explorer):
    """Which parallelism: one model on a number of nodes, all layouts tried; the state is the fastest one's recipe."""

    model: str = knob("llama-3.1-70b", "Model", choices=tuple(catalog.models))
    accelerator: str = knob("h100-sxm", "Accelerator", choices=ACCELERATORS)
    nodes: int = knob(8, "Nodes of eight", 1, 512, powers_of_two=True)
    seq_len: int = knob(8192, "Sequence length", 1024, 131_072, powers_of_two=True)
    batch_tokens: int = knob(4_194_304, "Tokens a step", 65_536, 67_108_864, powers_of_two=True)
    precision: Literal["bf16", "fp8", "mxfp8", "nvfp4"] = knob("bf16", "Precision")
    cross_entropy: Literal["full", "fused", "chunked"] = knob("full", "Cross entropy")

    _known = field_validator("model", "accelerator")(catalogued)

    @property
    def cluster(self) -> Cluster:
        """The nodes that the knobs describe."""
        return Cluster(accelerator=self.accelerator, nodes=self.nodes, gpus_per_node=8)

    @cached_property
    def found(self) -> Found:
        """The search. Raises `LabError` where nothing can be laid out at all."""
        spec = catalog.models[self.model]
        longer = spec.reaching(self.seq_len)
        return find_layouts(longer, self.cluster, self.batch_tokens, self.seq_len, precision=self.precision,
                            recompute=("none", "selective", "full"), cross_entropy=self.cross_entropy)  # fmt: skip

    @property
    def recipe(self) -> Pretrain:
        """The fastest layout that fits, as a recipe for twenty tokens a parameter. Raises `LabError` where none fits."""
        return self.found.best.recipe(name="planned")

    def view(self) -> View:
        """Speed over memory of the fastest layouts, those that fit and those that do not, with every loser's reason."""
        found = self.found
        return View(
            title=f"Layouts of {self.model} on {self.cluster.gpus} × {self.accelerator}",
            subtitle=found.title,
            headlines=self._headlines(),
            charts=FIGURES,
            frames={**self._drawn(), "limit": {"gib": [catalog.accelerators[self.accelerator].memory_gib]}},
            tables=(self._table(),),
            notes=(found.rule_words,),
        )

    def _headlines(self) -> tuple[Headline, ...]:
        found = self.found
        tried = Headline(
            "Layouts tried", f"{len(found):,}", f"{found.fitting:,} fit", "plain" if found.fitting else "bad"
        )
        if not found.fitting:
            return (tried,)
        best = found.rows(found.order[:1])[0]
        return (
            tried,
            Headline("Fastest", show.rate(best["tokens_per_second_per_gpu"]), "each accelerator"),
            Headline("Its memory", show.gib(best["peak_gib"]), "at the peak of a step"),
            Headline("MFU", show.share(best["mfu"]), "model FLOP over the data-sheet peak"),
        )

    def _drawn(self) -> dict[str, Frame]:
        """The fastest that fit, and the fastest of those that do not."""
        found = self.found
        fits = found.trials.fits[found.order]
        timed = np.isfinite(found.trials.seconds[found.order])
        frames = {}
        for name, chosen in (("fitting", fits), ("unfit", ~fits & timed)):
            indices = found.order[np.flatnonzero(chosen)[:FASTEST]]
            rows = found.rows(indices)
            frames[name] = {
                "rate": [charts.sample.rounded(row["tokens_per_second_per_gpu"]) for row in rows],
                "gib": [charts.sample.rounded(row["peak_gib"]) for row in rows],
                "layout": [found.layout_words(index) for index in indices],
                "reason": [row["reason"] for row in rows],
            }
        return frames

    def _table(self) -> Table:
        columns, rows = self.found.table(ROWS)
        return Table("Fastest first", tuple(columns), tuple(map(tuple, rows)), "Why each loses to the first.")


FIGURES: tuple[Figure, ...] = (charts.trade_off(),)
