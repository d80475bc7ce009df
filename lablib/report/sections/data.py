"""The data card: what the models read, under which licences, with hashes."""

from __future__ import annotations

from typing import Any

from lablib import charts
from lablib.data.flow import flow
from lablib.explorers.funnel import PUBLISHED, published, stages
from lablib.report.contamination import listed
from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Drawing, Section
from lablib.specs.units import show_count


def _row(name: str, domain: dict[str, Any], shards: list[dict[str, Any]]) -> tuple[object, ...]:
    """A domain's kept and held-out documents, its training text and tokens, licences, and the hash of its shard."""
    mine = {shard["split"]: shard for shard in shards if shard["domain"] == name}
    train, heldout = mine.get("train", {}), mine.get("heldout", {})
    licences = dict.fromkeys(source["licence"] for source in domain.get("sources", []))
    return (
        name,
        f"{domain['docs']:,}",
        f"{train.get('docs', 0):,}",
        f"{heldout.get('docs', 0):,}",
        show_count(train.get("tokens", 0), 4),
        "; ".join(licences) or "not recorded",
        tag("code", train.get("sha256", "")[:16]),
    )


COLUMNS = ("domain", "documents found", "trained on", "held out", "training tokens", "licences", "sha256 of the shard")


def _sources(domains: dict[str, dict[str, Any]]) -> Markup:
    rows = [
        (source["source"], name, f"{source['docs']:,}", source["licence"])
        for name, domain in domains.items()
        for source in domain.get("sources", [])
    ]
    left_out = sum(domain.get("duplicates", 0) + domain.get("short", 0) for domain in domains.values())
    words = tag("p", f"{left_out:,} documents were left out as exact duplicates or too short.", class_="muted")
    return folded(f"{len(rows)} sources", table(("source", "domain", "documents", "licence"), rows), words)


def _funnel(card: dict[str, Any]) -> list[Markup]:
    """What the reading and each step of the funnel let through, and why they dropped what they did."""
    rows = []
    for row in flow(card):
        told = row.count
        tokens = show_count(row.tokens_in - row.tokens_out)
        rows.append((row.step, f"{told.docs_in:,}", f"{told.docs_out:,}", f"{row.kept:.1%}", show_count(told.bytes_in - told.bytes_out), tokens, told.why))  # fmt: skip
    columns = ("step", "documents in", "out", "kept", "bytes less", "tokens less (estimate)", "why")
    return [table(columns, rows, "The funnel")]


def _beside(run_id: str, card: dict[str, Any]) -> Drawing:
    """This run's documents after each step, above a published funnel's."""
    rows = flow(card)
    first = max(1, rows[0].count.docs_in)
    own = [("found", "this run", 1.0, f"{first:,} documents")]
    own += [(row.step, "this run", row.count.docs_out / first, f"{row.count.docs_out:,} documents") for row in rows]
    return Drawing(f"{run_id}/funnel", charts.funnel(), {"funnel": stages([*own, *published(PUBLISHED[0])])})


def _drawing(run_id: str, shards: list[dict[str, Any]]) -> Drawing:
    train = [(shard["domain"], shard["tokens"]) for shard in shards if shard["split"] == "train"]
    rows = sorted(train, key=lambda row: -row[1])
    frame = {"label": [name for name, _ in rows], "value": [tokens for _, tokens in rows]}
    figure = charts.shares("corpus", "Tokens by domain", "Training tokens of each domain, before mixing.", "tokens")
    return Drawing(f"{run_id}/corpus", figure, {"corpus": frame})


def _card(run: RunRecord, drawing: Drawing, beside: Drawing) -> list[Markup]:
    card = run["data"]
    rows = [_row(name, domain, card["shards"]) for name, domain in card["domains"].items()]
    facts = card["tokenizer"]
    corpus = tag("p", "Corpus ", tag("b", card["corpus"]["name"]), " with hash ", tag("code", card["corpus"]["hash"]))
    words = tag("p", f"Tokenizer of {facts['vocab']:,} tokens, ", tag("code", facts["sha256"]), class_="muted")
    figure = tag("div", drawing.place, class_="lab-figures")
    return [
        corpus,
        words,
        figure,
        table(COLUMNS, rows, f"Corpus of {run['name']}"),
        tag("div", beside.place, class_="lab-figures"),
        *_funnel(card),
        *listed(run),
        _sources(card["domains"]),
    ]


def data_card(record: Record) -> Section:
    """One card for each data stage of the chain; says so where there is none."""
    runs = [run for run in record["runs"] if run["data"]]
    drawn = [(_drawing(run["id"], run["data"]["shards"]), _beside(run["id"], run["data"])) for run in runs]
    parts = [part for run, pair in zip(runs, drawn, strict=True) for part in _card(run, *pair)]
    if not parts:
        parts = [
            tag("p", "No data stage of this chain left a corpus manifest, so this report cannot say what was read.")
        ]
    return Section("data", "Data", join(parts), tuple(drawing for pair in drawn for drawing in pair))
