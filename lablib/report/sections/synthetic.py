"""Text that models wrote: what was kept of it, how deep and how diverse it is, and what caps would leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lablib import charts
from lablib.data.generations import TOLERANCE, Generations, said, unpacked
from lablib.explorers import Table, show
from lablib.explorers.synthetic import diverse, diversities, stacked, unmeasured
from lablib.explorers.written import Beside, fates
from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section
from lablib.specs.units import show_count

NONE = "No document of this chain's data says that a model wrote it."


def synthetic(record: Record) -> Section:
    """What each run wrote, and what each corpus holds, in the order of the chain; says so where there is none."""
    parts: list[Markup] = []
    drawings: list[Drawing] = []
    for run in record["runs"]:
        told = run["synthetic"] or {}
        if "written" in told:
            parts += _written(run, told, drawings)
        elif "generations" in told:
            parts += _corpus(run, unpacked(told["generations"]), drawings)
    body = join(parts) if parts else tag("p", NONE)
    return Section("synthetic", "Text that models wrote", body, tuple(drawings))


def _written(run: RunRecord, told: dict[str, Any], drawings: list[Drawing]) -> list[Markup]:
    """Of one Synthesize run."""
    facts = told["written"]
    beside = Beside.of(facts["diversity"])
    drawing = Drawing(f"{run['id']}/written", charts.written(), fates(facts))
    drawings.append(drawing)
    why = ", ".join(f"{reason} {number:,}" for reason, number in facts["refused"].items()) or "none"
    rows = [
        ("completions", f"{facts['asked']:,}"),
        ("kept", f"{facts['documents']:,} ({show_count(facts['bytes'])} bytes)"),
        ("refused", why),
        ("generation", f"{facts['generation']}; its model learned from generation {facts['trained_on']}"),
        ("diversity", f"{beside.headline.value} ({beside.headline.note})"),
    ]
    return [
        tag("h3", run["name"]),
        tag("div", drawing.place, class_="lab-figures"),
        table(("what", "how much"), rows, f"Written by {run['name']}"),
        *map(_table, beside.tables),
        _samples(
            "First completions that were kept", [(f"generation {row['generation']}", row) for row in told["kept"]]
        ),
        _samples("First completions that were refused", [(row["reason"], row) for row in told["refused"]]),
    ]


def _samples(summary: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> Markup:
    """As the model wrote them, not picked."""
    shown = [tag("article", tag("h4", head), tag("pre", row["text"])) for head, row in rows]
    return folded(f"{summary}: {len(rows)}", *shown)


def _corpus(run: RunRecord, told: Generations, drawings: list[Drawing]) -> list[Markup]:
    """Of one prepared corpus."""
    mine = [Drawing(f"{run['id']}/generations", charts.generations(), stacked(told.shares))]
    if told.diversity:
        mine.append(
            Drawing(f"{run['id']}/diversity", charts.generation_diversity(), diverse(told.diversity, TOLERANCE))
        )
    drawings += mine
    rows = [
        (
            one.generation,
            f"{one.documents:,}",
            show_count(one.tokens, 4),
            show.share(one.synthetic),
            show_count(one.stays, 4),
        )
        for one in told.shares
    ]
    columns = ("generation", "documents", "tokens", "synthetic", "tokens under the caps")
    raised = told.alarms
    return [
        tag("h3", run["name"]),
        tag("p", _caps(told)),
        tag("div", *(drawing.place for drawing in mine), class_="lab-figures even"),
        table(columns, rows, f"Generations in the corpus of {run['name']}"),
        *([_table(diversities(told.diversity, raised))] if told.diversity else []),
        *(tag("p", said(depth, found), class_="bad") for depth, found in raised.items()),
        *(tag("p", text) for text in unmeasured(told.shares, told.diversity)),
    ]


def _caps(told: Generations) -> str:
    caps = told.caps
    limits = f"generation {caps.depth} at most, {caps.document:.0%} of one document, {caps.corpus:.0%} of all tokens"
    if told.enforced:
        return f"The recipe's caps were kept: {limits}."
    gone = sum(one.tokens - one.stays for one in told.shares)
    would = f"would drop {show_count(gone)} tokens" if gone else "would drop nothing"
    return f"The recipe sets no caps; the usual ones ({limits}) {would}."


def _table(found: Table) -> Markup:
    return join([table(found.columns, found.rows, found.title), tag("p", found.caption, class_="muted")])
