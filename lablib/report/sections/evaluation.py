"""Scores with intervals, and the verdict that the paired differences allow."""

from __future__ import annotations

from typing import Any

from lablib import charts
from lablib.report.contamination import badge, status
from lablib.report.markup import Markup, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section

UNITS = {"share": "share of items right"}
MARKS = {"improvement": "▲", "regression": "▼", "no result": "○"}


def _interval(row: dict[str, Any]) -> str:
    return (
        f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        if row.get("low") is not None
        else f"{row['value']:.3f}"
    )


def _scores(run: RunRecord, runs: list[RunRecord]) -> Markup:
    tasks = {task["name"]: task for task in run["recipe"].get("tasks", [])}
    told = {name: badge(status(task, runs)) for name, task in tasks.items()}
    rows = [
        (row["model"], row["task"], row["metric"], _interval(row), row["items"], told.get(row["task"], ""))
        for row in run["scores"]["scores"]
    ]
    columns = ("model", "task", "measure", "score (95 % interval)", "items", "training data")
    return table(columns, rows, "Scores on held-out items")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _comparison(row: dict[str, Any]) -> tuple[object, ...]:
    told = row["verdict"]
    numbers = f"{_signed(row['difference'])} ({_signed(row['low'])} to {_signed(row['high'])})"
    mark = tag("span", f"{MARKS[told]} {told}", class_={"improvement": "good", "regression": "bad"}.get(told, "muted"))
    return (f"{row['model']} against {row['baseline']}", row["task"], row["metric"], numbers, row["items"], mark)


def _comparisons(scores: dict[str, Any]) -> Markup | None:
    columns = ("comparison", "task", "measure", "paired difference (95 % interval)", "items", "verdict")
    rows = [_comparison(row) for row in scores["comparisons"]]
    return table(columns, rows, "What the differences show, above zero is better") if rows else None


def _references(scores: dict[str, Any]) -> Markup | None:
    rows = [f"{row['name']} on {row['task']}: {row['value']:.3f}" for row in scores.get("references", [])]
    return tag("p", f"For comparison, without any model: {'; '.join(rows)}.", class_="muted") if rows else None


def _drawings(run_id: str, scores: dict[str, Any]) -> list[Drawing]:
    """A figure for each unit: shares and bits per byte have no common axis."""
    names, found = ("task", "model", "value", "low", "high"), []
    for at, unit in enumerate(dict.fromkeys(row["unit"] for row in scores["scores"])):
        rows = [row for row in scores["scores"] if row["unit"] == unit]
        figure = charts.scores(f"scores_{at}", UNITS.get(unit, unit))
        found.append(Drawing(f"{run_id}/scores_{at}", figure, {figure.name: charts.columns(rows, names)}))
    return found


def evaluation(record: Record) -> Section:
    """Every evaluation of the chain; a difference counts only where its interval excludes zero."""
    parts: list[Markup | None] = []
    drawings: list[Drawing] = []
    for run in record["runs"]:
        if not run["scores"]:
            continue
        own = _drawings(run["id"], run["scores"])
        drawings += own
        parts.append(tag("div", *(drawing.place for drawing in own), class_="lab-figures even"))
        parts += [_comparisons(run["scores"]), _scores(run, record["runs"]), _references(run["scores"])]
    rule = tag(
        "p",
        "A stage counts as an improvement (or a regression) only where the interval of the paired difference on the same held-out items excludes zero; otherwise the verdict is “no result”.",
    )
    body = join([rule, *parts]) if parts else tag("p", "Nothing was evaluated in this chain.")
    return Section("evaluation", "Evaluation", body, tuple(drawings))
