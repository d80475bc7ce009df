"""The data card: what the models read, under which licences, with hashes."""

from __future__ import annotations

from typing import Any

from lablib import charts
from lablib.report.markup import join, table, tag
from lablib.report.record import Record
from lablib.report.section import Drawing, Section
from lablib.specs.units import show_count


def _licences(domain: dict[str, Any]) -> str:
    found = domain.get("licences", domain.get("licence", "not recorded"))
    return ", ".join(map(str, found)) if isinstance(found, list | tuple | dict) else str(found)


def _row(name: str, domain: dict[str, Any]) -> tuple[object, ...]:
    counts = [show_count(domain[key], 4) if key in domain else "" for key in ("documents", "bytes", "tokens")]
    return (name, *counts, _licences(domain), tag("code", str(domain.get("sha256", ""))[:16]))


def _drawing(run_id: str, domains: dict[str, dict[str, Any]]) -> Drawing:
    rows = sorted(
        ((name, domain["tokens"]) for name, domain in domains.items() if "tokens" in domain), key=lambda row: -row[1]
    )
    frame = {"label": [name for name, _ in rows], "value": [tokens for _, tokens in rows]}
    figure = charts.shares("corpus", "Tokens by domain", "Training tokens of each source, before mixing.", "tokens")
    return Drawing(f"{run_id}/corpus", figure, {"corpus": frame})


def data_card(record: Record) -> Section:
    """One table for each data stage of the chain; says so where there is none."""
    parts, drawings = [], []
    for run in record["runs"]:
        domains = (run["data"] or {}).get("domains")
        if not domains:
            continue
        drawing = _drawing(run["id"], domains)
        drawings.append(drawing)
        columns = ("domain", "documents", "bytes", "tokens", "licence", "sha256")
        shown = table(columns, [_row(name, domain) for name, domain in domains.items()], f"Corpus of {run['name']}")
        parts += [tag("div", drawing.place, class_="lab-figures"), shown]
    if not parts:
        parts = [
            tag("p", "No data stage of this chain left a corpus manifest, so this report cannot say what was read.")
        ]
    return Section("data", "Data", join(parts), tuple(drawings))
