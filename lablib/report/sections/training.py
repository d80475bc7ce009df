"""Curves of every stage that logged any: loss against its forecast first."""

from __future__ import annotations

from typing import Any

from lablib.explorers import domains
from lablib.explorers.monitor import figures, kept_and_learned
from lablib.explorers.wall import wall_table
from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section

FIRST = ("reward", "loss", "accuracy", "domain_loss", "mixture_read")
"""What a stage is trained on, and by domain; the rest is folded."""
SHOWN = 10
"""Operators of a trace."""


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
    figures_ = tag("div", *first, class_="lab-figures")
    return join([tag("h3", run["name"]), note, figures_, *_domains(run), _wall(run), _traces(run), more])


def _domains(run: RunRecord) -> list[Markup]:
    """What was kept and learned, what was read often, and what of each domain."""
    read = domains.table(run["frames"])
    warned = [tag("p", words) for words in (*kept_and_learned(run["sides"]), *domains.repeats(run["frames"]))]
    return warned if read is None else [*warned, table(read.columns, read.rows, f"{read.title}. {read.caption}")]


def _wall(run: RunRecord) -> Markup | None:
    """Where the time of all attempts went."""
    if run["account"] is None:
        return None
    made = wall_table(run["account"], run["estimate"])
    return join([table(made.columns, made.rows, made.title), tag("p", made.caption, class_="muted")])


def _traces(run: RunRecord) -> Markup | None:
    """Rank 0's operators of each trace, and where the files are."""
    return join(_trace(trace) for trace in run["traces"] if trace["rank"] == 0) if run["traces"] else None


def _trace(trace: dict[str, Any]) -> Markup:
    rows = [
        (row["op"], row["calls"], f"{row[trace['by']]:.2f}", f"{row[trace['by']] / trace['total_ms']:.1%}")
        for row in trace["ops"][:SHOWN]
    ]
    where = f"The whole trace is {trace['file']} in the run's folder; ui.perfetto.dev opens it."
    memory = f" Memory: {trace['memory']} (pytorch.org/memory_viz)." if trace["memory"] else ""
    columns = ("operator", "calls", "ms of its own", "share")
    return folded(f"{trace['name']}: where rank 0's time went", table(columns, rows), tag("p", where + memory))


def training(record: Record) -> Section:
    """Figures of each run with metrics."""
    stages = [(run, _drawings(run)) for run in record["runs"]]
    shown = [_stage(run, drawings) for run, drawings in stages if drawings]
    body = join(shown) if shown else tag("p", "No stage of this chain logged metrics.")
    return Section("training", "Training", body, tuple(drawing for _, drawings in stages for drawing in drawings))
