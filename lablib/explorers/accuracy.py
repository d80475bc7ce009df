"""How right the planner is: what it says of published measurements, field by field and source by source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median
from typing import Literal, NamedTuple

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.specs import AnyRecipe, LabError
from lablib.specs.catalog import rows

UNITS = {"memory": "GiB a GPU", "throughput": "tokens/s a GPU", "runs": "GPU-hours", "posttrain": "GiB or seconds"}
FIELD = Literal["memory", "throughput", "runs", "posttrain"]


class Point(NamedTuple):
    """One published measurement and the plan's figure for it."""

    source: str
    row: str
    model: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Absolute error as a share of what was published."""
        return abs(self.predicted / self.published - 1)


class Accuracy(Explorer):
    """Predicted against published (``catalogue/accuracy.csv``, written by ``python -m bench.planner.saved``)."""

    field: FIELD = knob("throughput", "What")
    source: str = knob("all", "Source", choices=("all", *sorted({row["source"] for row in rows("accuracy")})))

    @property
    def recipe(self) -> AnyRecipe:
        """Published rows are other people's runs: there is nothing to submit, which the error says."""
        raise LabError("the accuracy screen shows published measurements; there is no recipe to submit from it")

    def points(self) -> list[Point]:
        """The rows that the knobs choose."""
        return [point for point in _points(self.field) if self.source in ("all", point.source)]

    def view(self) -> View:
        """Headlines, the scatter, and errors by source. Raises `LabError` where the source has no such rows."""
        points = self.points()
        if not points:
            raise LabError(f"source={self.source!r} has no {self.field} rows; choose one of {', '.join(sorted(_by_source(_points(self.field))))}")  # fmt: skip
        return View(
            title=f"Predicted against published: {self.field}",
            subtitle=f"{len(points)} measurements · {UNITS[self.field]}",
            headlines=_headlines(points),
            charts=(FIGURES[self.field],),
            frames={self.field: _frame(points), "agree": _agree(points)},
            tables=(_table(points),),
        )


FIGURES: dict[str, Figure] = {name: charts.accuracy(name, f"Predicted against published: {name}", unit) for name, unit in UNITS.items()}  # fmt: skip


def _points(field: str) -> Iterator[Point]:
    for row in rows("accuracy"):
        if row["field"] == field:
            yield Point(row["source"], row["row"], row["model"], float(row["published"]), float(row["predicted"]))


def _by_source(points: Iterator[Point] | list[Point]) -> dict[str, list[Point]]:
    made: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        made[point.source].append(point)
    return made


def _within(points: list[Point], share: float) -> float:
    return sum(point.error <= share for point in points) / len(points)


def _headlines(points: list[Point]) -> tuple[Headline, ...]:
    return (
        Headline("Median error", show.share(median(point.error for point in points)), f"{len(points)} rows"),
        Headline("Within a tenth", show.share(_within(points, 0.1)), "of the rows"),
        Headline("Within a fifth", show.share(_within(points, 0.2)), "of the rows"),
        Headline(
            "Middle ratio", f"{median(p.predicted / p.published for p in points):.2f}", "predicted over published"
        ),
    )


def _frame(points: list[Point]) -> Frame:
    return {
        "published": [point.published for point in points],
        "predicted": [point.predicted for point in points],
        "source": [point.source for point in points],
        "text": [f"{point.row} {point.model}" for point in points],
    }


def _agree(points: list[Point]) -> Frame:
    ends = [min(point.published for point in points), max(point.published for point in points)]
    return {
        "published": ends,
        "predicted": ends,
        "low": [0.9 * end for end in ends],
        "high": [1.1 * end for end in ends],
    }


def _table(points: list[Point]) -> Table:
    found = sorted(_by_source(points).items(), key=lambda item: -len(item[1]))
    made = tuple(
        (source, str(len(some)), show.share(median(p.error for p in some)), show.share(_within(some, 0.1)), show.share(_within(some, 0.2)))
        for source, some in found
    )  # fmt: skip
    return Table("Errors by source", ("source", "rows", "median error", "within 10 %", "within 20 %"), made)
