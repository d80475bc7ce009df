"""Scores with intervals, and the verdict that the paired differences allow."""

from __future__ import annotations

from typing import Any

from lablib import charts
from lablib.report.markup import Markup, join, table, tag
from lablib.report.record import Record
from lablib.report.scores import verdict
from lablib.report.section import Drawing, Section

MARKS = {"improvement": "▲", "regression": "▼", "no result": "○"}


def _interval(row: dict[str, Any]) -> str:
    return (
        f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        if row.get("low") is not None
        else f"{row['value']:.3f}"
    )


def _scores(scores: dict[str, Any]) -> Markup:
    rows = [
        (row["model"], row["task"], row["metric"], _interval(row), row.get("items", "")) for row in scores["scores"]
    ]
    return table(("model", "task", "measure", "score (95 % interval)", "items"), rows, "Scores on held-out items")


def _comparisons(scores: dict[str, Any]) -> Markup | None:
    rows = []
    for row in scores["comparisons"]:
        told = verdict(row)
        numbers = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        tone = {"improvement": "good", "regression": "bad"}.get(told, "muted")
        rows.append(
            (
                f"{row['model']} − {row['baseline']}",
                row["task"],
                numbers,
                tag("span", f"{MARKS[told]} {told}", class_=tone),
            )
        )
    columns = ("comparison", "task", "paired difference (95 % interval)", "verdict")
    return table(columns, rows, "What the differences show") if rows else None


def _drawing(run_id: str, scores: dict[str, Any]) -> Drawing | None:
    rows = [row for row in scores["scores"] if row.get("low") is not None and row["unit"] == "share"]
    names = ("task", "model", "value", "low", "high")
    return Drawing(f"{run_id}/scores", charts.scores(), {"scores": charts.columns(rows, names)}) if rows else None


def evaluation(record: Record) -> Section:
    """Every evaluation of the chain; a difference counts only where its interval excludes zero."""
    parts: list[Markup | None] = []
    drawings = []
    for run in record["runs"]:
        if not run["scores"]:
            continue
        drawing = _drawing(run["id"], run["scores"])
        if drawing:
            drawings.append(drawing)
            parts.append(tag("div", drawing.place, class_="lab-figures"))
        parts += [_comparisons(run["scores"]), _scores(run["scores"])]
    rule = tag(
        "p",
        "A stage counts as an improvement (or a regression) only where the interval of the paired difference on the same held-out items excludes zero; otherwise the verdict is “no result”.",
    )
    body = join([rule, *parts]) if parts else tag("p", "Nothing was evaluated in this chain.")
    return Section("evaluation", "Evaluation", body, tuple(drawings))
