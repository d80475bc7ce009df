"""What was asked, and what it was priced at before it began."""

from __future__ import annotations

import json
from collections.abc import Iterable

from lablib.explorers import show
from lablib.explorers.planned import Span
from lablib.explorers.switches import switches
from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Section
from lablib.report.spans import planned
from lablib.specs import Cluster, LabError, Pretrain, parse_recipe
from lablib.specs.recipes import PostTrain

WORDS = "Estimates and forecasts were written into each run's folder when it was submitted, before it started."


def summary(run: RunRecord) -> str:
    """The fields of a recipe that are not its defaults."""
    try:
        fields = parse_recipe(run["recipe"]).summary()
    except LabError as error:
        return f"The recipe does not parse in this version of the lab: {error}"
    hidden = ("name", "stage", "model", "data", "models")
    return ", ".join(f"{name}={value}" for name, value in fields.items() if name not in hidden and len(value) < 120)


def _recipe(run: RunRecord) -> Markup:
    head = tag("h4", f"{run['name']} · recipe {run['recipe_hash']} · experiment {run['science_hash']}")
    return join([head, tag("pre", json.dumps(run["recipe"], indent=1))])


def _cell(span: Span | None, measure: str) -> Markup:
    """The middle, with the range below it."""
    if span is None:
        return tag("span", "–", class_="muted")
    show_one = show.SHOW[measure]
    exact = span.low == span.high
    return join([show_one(span.mid), None if exact else tag("small", f"{show_one(span.low)} to {show_one(span.high)}")])


def _audit(run: RunRecord) -> Markup | None:
    """How each registered number came about; None for a run that was priced before plans kept it."""
    entries = (run["estimate"] or {}).get("ledger")
    if not entries:
        return None
    columns = ("name", "value", "formula", "inputs", "source")
    rows = [tuple(entry.get(column, "") for column in columns) for entry in entries]
    return join([tag("h4", run["name"]), table(("number", *columns[1:]), rows)])


def _what_if(run: RunRecord) -> Markup | None:
    """What each switch would change, as the memory planner says it; None for stages that have none."""
    try:
        recipe = parse_recipe(run["recipe"])
        if not isinstance(recipe, Pretrain | PostTrain) or run["cluster"] is None:
            return None
        found = switches(recipe, Cluster(**run["cluster"]))
    except LabError:
        return None  # the recipe's references, or a recipe of another version, cannot be priced here
    return join([tag("h4", run["name"]), table(found.columns, found.rows, found.caption)])


def _folded(summary: str, parts: Iterable[Markup | None]) -> Markup | None:
    found = [part for part in parts if part is not None]
    return folded(summary, *found) if found else None


def plan(record: Record) -> Section:
    """The chain with each stage's registered estimate; the recipes are folded below."""
    rows = []
    for run in record["runs"]:
        told = planned(run)
        cells = [_cell(getattr(told, field), field) for field in ("seconds", "gib", "dollars", "loss")]
        rows.append((run["name"], summary(run) or "all defaults", *cells))
    columns = ("stage", "what it does", "time", "memory", "money", "final loss")
    shown = table(columns, rows, "Plan, as registered")
    recipes = folded("The recipes in full", *map(_recipe, record["runs"]))
    audit = _folded("How each number came about", map(_audit, record["runs"]))
    what_if = _folded("What if: one switch at a time", map(_what_if, record["runs"]))
    return Section("plan", "The plan", join([tag("p", WORDS), shown, what_if, audit, recipes]))
