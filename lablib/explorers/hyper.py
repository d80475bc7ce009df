"""A pretraining's learning rate, batch and weight decay among the published laws, as charts and a table."""

from __future__ import annotations

import numpy as np

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.charts.sample import rounded
from lablib.explorers.view import Table
from lablib.plan import scaling
from lablib.plan.scaling import Quantity, Scale
from lablib.specs import Pretrain

POINTS = 41
REACH = (1e17, 1e25)
"""FLOP that the curves span at least."""
FIGURES: tuple[Figure, ...] = (
    charts.laws("rates", "Learning rate by published laws", "learning rate"),
    charts.laws("batches", "Batch by published laws", "tokens a step"),
)


def frames(recipe: Pretrain) -> dict[str, Frame]:
    """The frames of `FIGURES`."""
    scale = Scale.of(recipe)
    own = {"rates": recipe.optimizer.learning_rate, "batches": float(recipe.step_tokens)}
    here = {f"{name}_here": {"x": [scale.flops], "y": [value]} for name, value in own.items()}
    return {"rates": _curves("learning_rate", scale), "batches": _curves("batch_tokens", scale), **here}


def _curves(quantity: Quantity, scale: Scale) -> Frame:
    made: Frame = {"x": [], "y": [], "law": [], "held": []}
    low, high = min(REACH[0], scale.flops / 10), max(REACH[1], scale.flops * 10)
    for law in scaling.LAWS:
        for flops in np.geomspace(low, high, POINTS) if law.quantity == quantity else ():
            point = scale.at(float(flops))
            if (value := law.value(point)) > 0:
                row = (rounded(point.flops), rounded(value), law.name, "beyond" if law.outside(point) else "fitted")
                for column, cell in zip(made, row, strict=True):
                    made[column].append(cell)
    return made


def table(recipe: Pretrain) -> Table:
    """Every law beside the recipe's own numbers."""
    columns = ("quantity", "law", "says", "recipe", "recipe / law", "beyond what it was fitted on")
    rows = tuple(tuple(row) for row in scaling.table(scaling.advice(recipe)))
    return Table("Hyper-parameters by published laws", columns, rows, scaling.words(recipe))
