"""Planned against actual, stage by stage: time, memory, money, throughput, loss."""

from __future__ import annotations

from collections.abc import Mapping

from lablib import charts
from lablib.charts import Frame
from lablib.explorers import show
from lablib.explorers.planned import Span
from lablib.report.markup import Markup, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section
from lablib.report.spans import planned

MEASURES = (
    ("time", "seconds", "seconds"),
    ("memory", "gib", "peak_gib"),
    ("money", "dollars", "dollars"),
    ("throughput", "rate", "tokens_per_second"),
    ("final loss", "loss", "loss"),
)
"""Label, field of the plan, field of the outcome."""
WORDS = "Time is the job's own, waiting excluded; memory is the fullest process; money is accelerator-hours at the registered price; the loss is the mean of the last ten logged steps."


def _cell(run: RunRecord, field: str, measured: str) -> Markup:
    """What happened, what was planned, and how they compare."""
    span, actual = getattr(planned(run), field), run["outcome"][measured]
    if (span is None and actual is None) or (
        field == "loss" and run["stage"] == "grpo"
    ):  # a policy's loss says nothing
        return tag("span", "–", class_="muted")
    told = show.against(actual, span)
    plan = None if span is None else tag("small", f"planned {show.span(span, field)}")
    return join([show.SHOW[field](actual), plan, None if actual is None else tag("small", told)])


def _frame(record: Record, field: str, measured: str, scale: float = 1.0) -> Frame:
    rows = [(run["name"], getattr(planned(run), field), run["outcome"][measured]) for run in record["runs"]]
    both = [(name, span, actual) for name, span, actual in rows if span is not None and actual]
    spans: list[Span] = [span for _, span, _ in both]
    return {
        "stage": [name for name, _, _ in both],
        "low": [span.low * scale for span in spans],
        "mid": [span.mid * scale for span in spans],
        "high": [span.high * scale for span in spans],
        "actual": [actual * scale for _, _, actual in both],
    }


def _drawings(record: Record) -> tuple[Drawing, ...]:
    made: list[tuple[str, str, Mapping[str, Frame]]] = [
        ("Time by stage", "seconds", {"time": _frame(record, "seconds", "seconds")}),
        ("Memory by stage", "GiB", {"memory": _frame(record, "gib", "peak_gib")}),
    ]
    return tuple(
        Drawing(f"outcome/{name}", charts.plan_vs_actual(name, title, unit), frames)
        for title, unit, frames in made
        for name, frame in frames.items()
        if frame["stage"]
    )


def outcome(record: Record) -> Section:
    """A row a stage, with time and memory drawn."""
    rows = [(run["name"], *(_cell(run, field, measured) for _, field, measured in MEASURES)) for run in record["runs"]]
    drawings = _drawings(record)
    shown = table(("stage", *(label for label, _, _ in MEASURES)), rows, "What happened, and what was planned")
    words = tag("p", WORDS)
    figures = tag("div", *(drawing.place for drawing in drawings), class_="lab-figures even") if drawings else None
    return Section("outcome", "Planned and actual", join([words, figures, shown]), drawings)
