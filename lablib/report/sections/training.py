"""Curves of every stage that logged any: loss against its forecast first."""

from __future__ import annotations

from lablib.explorers import domains
from lablib.explorers.monitor import figures
from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section

FIRST = ("reward", "loss", "accuracy", "domain_loss", "mixture_read")
"""What a stage is trained on, and by domain; the rest is folded."""


def _drawings(run: RunRecord) -> list[Drawing]:
    return [Drawing(f"{run['id']}/{figure.name}", figure, run["frames"]) for figure in figures(run["frames"])]


def _stage(run: RunRecord, drawings: list[Drawing]) -> Markup:
    first = [drawing.place for drawing in drawings if drawing.figure.name in FIRST]
    rest = [drawing.place for drawing in drawings if drawing.figure.name not in FIRST]
    basis = (run["forecast"] or {}).get("basis")
    more = (
        folded("Throughput, memory, learning rate and gradients", tag("div", *rest, class_="lab-figures even"))
        if rest
        else None
    )
    note = tag("p", f"The forecast: {basis}", class_="muted") if basis else None
    read = domains.table(run["frames"])
    shown = None if read is None else table(read.columns, read.rows, f"{read.title}. {read.caption}")
    warned = [tag("p", words) for words in domains.repeats(run["frames"])]
    return join([tag("h3", run["name"]), note, tag("div", *first, class_="lab-figures"), *warned, shown, more])


def training(record: Record) -> Section:
    """Figures of each run with metrics."""
    stages = [(run, _drawings(run)) for run in record["runs"]]
    shown = [_stage(run, drawings) for run, drawings in stages if drawings]
    body = join(shown) if shown else tag("p", "No stage of this chain logged metrics.")
    return Section("training", "Training", body, tuple(drawing for _, drawings in stages for drawing in drawings))
