"""The data card: what is in prepared data, from where, under which licences, what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lablib.data import provenance, shards
from lablib.data.funnel import Count, totals
from lablib.data.mixing.collapse import Caps
from lablib.specs import write_atomic
from lablib.specs.units import show_count

REMEDY = "Raise `heldout`, or give them more documents."
"""For domains that are not evaluated."""
LISTED = 100
"""Sources that the card names; ``lab data rights`` lists all."""


def reading(card: dict[str, Any]) -> dict[str, Any]:
    """What was set aside while the sources were read, in the form of a row of the funnel; bytes are only those that stayed,
    for what cannot be read has no size."""
    first = card["funnel"][0]["domains"] if card.get("funnel") else {}
    domains = {name: _read(facts, first.get(name)) for name, facts in card["domains"].items()}
    return {"step": "reading", "key": "", "domains": domains}


def steps(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Every row of the funnel, the reading first."""
    return [reading(card), *card.get("funnel", [])]


def _read(facts: dict[str, Any], after: dict[str, Any] | None) -> dict[str, Any]:
    docs, size = (after["docs_in"], after["bytes_in"]) if after else (facts["docs"], facts["bytes"])
    named = {"exact duplicate": facts.get("duplicates", 0), "too short": facts.get("short", 0)}
    reasons = {name: number for name, number in {**named, **facts.get("aside", {})}.items() if number}
    return vars(Count(docs + sum(reasons.values()), docs, size, size, reasons))


def write(folder: Path, contamination: str = "", caps: Caps | None = None) -> Path:
    """Write ``card.md`` beside the manifest of a prepared folder; `contamination` is its report's text, `caps`
    are those of the guard against collapse (None: the usual).

    Raises `LabError` where it is no such folder.
    """
    path = Path(folder) / "card.md"
    write_atomic(path, "\n".join(_lines(Path(folder), contamination, caps)) + "\n")
    return path


def _lines(folder: Path, contamination: str, caps: Caps | None) -> Iterator[str]:
    card = shards.manifest(folder)
    docs, tokens = (sum(row[name] for row in card["shards"]) for name in ("docs", "tokens"))
    yield f"# Data card: {card['corpus']['name']}\n"
    yield f"{docs:,} documents, {show_count(tokens, 4)} tokens of a vocabulary of {card['tokenizer']['vocab']:,}.\n"
    yield f"- corpus `{card['corpus']['hash']}`"
    yield f"- tokenizer `{card['tokenizer']['sha256']}`\n"
    yield from _domains(card)
    yield from _sources(card)
    yield "## What was dropped\n"
    rows = [(row["step"], totals(row)) for row in steps(card)]
    told = [(name, f"{one.docs_in:,}", f"{one.docs_out:,}", one.why or "nothing") for name, one in rows]
    yield from _table(("step", "documents in", "out", "because"), told)
    yield from _provenance(folder, card, caps)
    yield "## Decontamination\n"
    yield contamination or "Not searched for items of any benchmark."


def _domains(card: dict[str, Any]) -> Iterator[str]:
    yield "## Domains\n"
    rows = []
    for name, facts in card["domains"].items():
        made = {row["split"]: row for row in card["shards"] if row["domain"] == name}
        if made:
            licences = "; ".join(dict.fromkeys(source["licence"] for source in facts["sources"]))
            train, heldout = made["train"], made["heldout"]
            cells = f"{train['docs']:,}", f"{train['tokens']:,}", f"{heldout['docs']:,}", f"{heldout['tokens']:,}"
            rows.append((name, *cells, licences))
    columns = ("domain", "training documents", "tokens", "held-out documents", "tokens", "licences")
    yield from _table(columns, rows)
    if missing := unheld(card):
        yield f"Without a held-out document, and so absent from evaluation: {', '.join(missing)}. {REMEDY}\n"


def unheld(card: dict[str, Any]) -> list[str]:
    """Domains that are trained on and have no held-out document: no evaluation measures them."""
    docs = {(row["domain"], row["split"]): row["docs"] for row in card["shards"]}
    return sorted(name for name in card["domains"] if docs.get((name, "train")) and not docs.get((name, "heldout")))


def _sources(card: dict[str, Any]) -> Iterator[str]:
    found = [(one["source"], name, one["docs"], one["licence"]) for name, facts in card["domains"].items() for one in facts["sources"]]  # fmt: skip
    found.sort(key=lambda row: -row[2])
    yield "## Sources and licences\n"
    yield "Licences are those that the sources state; nobody has checked them against each text.\n"
    yield from _table(("source", "domain", "documents", "licence"), [(*row[:2], f"{row[2]:,}", row[3]) for row in found[:LISTED]])  # fmt: skip
    if len(found) > LISTED:
        yield f"and {len(found) - LISTED:,} more, which `lab data rights` lists.\n"


def _provenance(folder: Path, card: dict[str, Any], caps: Caps | None) -> Iterator[str]:
    yield "## Provenance\n"
    known = {name: facts.get("provenance", {}) for name, facts in card["domains"].items() if facts["docs"]}
    if not any(known.values()):
        yield "Every document has its source, licence and SHA-256. None has an address or a time, and none says that a model wrote it.\n"  # fmt: skip
        return
    made = provenance.shares(folder)
    rows = [
        (name, f"{told.get('url', 0):,}", f"{told.get('time', 0):,}", f"{made[name].synthetic:.1%}", f"{made[name].generation}")
        for name, told in known.items()
    ]  # fmt: skip
    yield from _table(("domain", "with an address", "with a time", "synthetic tokens", "deepest generation"), rows)
    if any(share.generation for share in made.values()):
        yield guarded(folder, caps) + "\n"


def guarded(folder: Path, caps: Caps | None = None) -> str:
    """What the guard against collapse says of a prepared folder, in a sentence; without `caps` under the usual ones."""
    caps = caps or Caps()
    found = provenance.verdict(folder, caps)
    dropped = ", ".join(f"{number:,} by {cap}" for cap, number in found.dropped.items() if number)
    limits = f"generation {caps.depth} at most, {caps.corpus:.0%} of all tokens"
    if not dropped:
        return f"The guard against collapse ({limits}) finds nothing to drop."
    return f"The guard against collapse ({limits}) would drop documents: {dropped}; {found.synthetic:.1%} of the tokens left would be synthetic."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in row)} |"
    yield ""
