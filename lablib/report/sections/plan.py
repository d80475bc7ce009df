"""What was asked, and what it was priced at before it began."""

from __future__ import annotations

from lablib.explorers import show
from lablib.report.markup import Markup, escape, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Section
from lablib.report.spans import planned
from lablib.specs import LabError, parse_recipe


def summary(run: RunRecord) -> str:
    """The fields of a recipe that are not its defaults."""
    try:
        fields = parse_recipe(run["recipe"]).summary()
    except LabError as error:
        return f"The recipe does not parse in this version of the lab: {error}"
    hidden = ("name", "stage", "model", "data", "models")
    return ", ".join(f"{name}={value}" for name, value in fields.items() if name not in hidden and len(value) < 120)


def _recipe(run: RunRecord) -> Markup:
    import json

    return folded(f"{run['name']}: recipe {run['recipe_hash']}", tag("pre", json.dumps(run["recipe"], indent=1)))


def plan(record: Record) -> Section:
    """The chain with each stage's registered estimate; recipes are folded below."""
    rows = []
    for run in record["runs"]:
        told = planned(run)
        rows.append(
            (
                run["name"],
                summary(run),
                show.span(told.seconds, "seconds"),
                show.span(told.gib, "gib"),
                show.span(told.dollars, "dollars"),
                show.span(told.loss, "loss"),
            )
        )
    words = tag(
        "p", "Estimates and forecasts were written into each run's folder when it was submitted, before it started."
    )
    shown = table(("stage", "what it does", "time", "memory", "money", "final loss"), rows, "Plan, as registered")
    return Section("plan", "The plan", join([words, shown, *map(_recipe, record["runs"]), escape("")]))
