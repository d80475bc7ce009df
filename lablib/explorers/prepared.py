"""What a data run did: its funnel beside a published one with rights and decontamination, and a browser of its samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from lablib.charts import Figure
from lablib.charts.funnel import funnel
from lablib.data import provenance, samples, shards
from lablib.data.corpus import origin
from lablib.data.editing import shared_prefix
from lablib.data.flow import Flow, flow
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.funnel import PUBLISHED, published, stages
from lablib.explorers.view import Headline, Table, View
from lablib.runs import Run
from lablib.specs import AnyRecipe
from lablib.specs.units import show_count

FIGURES: tuple[Figure, ...] = (funnel(),)
STEPS = ("any", "reading", "quality", "near-duplicates", "repeated-text", "decontamination", "personal-data")
"""Steps whose samples can be asked for, by the names of their files."""
PAGE = 6
"""Samples on a screen."""
WIDE = 280
"""Characters of each."""
RIGHTS = 12
"""Rows of the table of rights."""


class DataFlow(Explorer):
    """Documents, bytes and tokens through a data run, above a published funnel."""

    run: str
    """Folder of a finished data run."""
    published: str = knob(PUBLISHED[0], "Beside it", choices=PUBLISHED)
    counted: Literal["documents", "bytes", "tokens"] = knob("documents", "Counted in")

    @property
    def recipe(self) -> AnyRecipe:
        """The run's own."""
        return Run.open(self.run).recipe

    def view(self) -> View:
        """Raises `LabError` where the folder holds no prepared data."""
        opened = Run.open(self.run)
        rows = flow(shards.manifest(opened.path / "data"))
        first = _amount(rows[0], self.counted, "in")
        own = [("found", "this run", 1.0, f"{show_count(first)} {self.counted}")]
        own += [(row.step, "this run", _amount(row, self.counted, "out") / max(1, first), _words(row, self.counted)) for row in rows]  # fmt: skip
        return View(
            title="What the funnel left",
            subtitle=f"{opened.recipe.name} · {opened.id}",
            headlines=_headlines(rows),
            charts=FIGURES,
            frames={"funnel": stages([*own, *published(self.published)])},
            tables=(_steps(rows), _rights(opened), *_benchmarks(opened)),
            notes=("Tokens before the last row are bytes times the tokens a byte of each domain's shards. A published funnel keeps its own unit.",),
        )  # fmt: skip


def _amount(row: Flow, unit: str, end: str) -> float:
    if unit == "tokens":
        return float(getattr(row, f"tokens_{end}"))
    return float(getattr(row.count, f"{'docs' if unit == 'documents' else unit}_{end}"))


def _words(row: Flow, unit: str) -> str:
    return f"{show_count(_amount(row, unit, 'out'))} {unit}"


def _headlines(rows: Sequence[Flow]) -> tuple[Headline, ...]:
    first, last = rows[0], rows[-1]
    changed = sum(row.count.docs_changed for row in rows)
    return (
        Headline("Documents kept", show.share(last.count.docs_out / max(1, first.count.docs_in)), f"{last.count.docs_out:,} of {first.count.docs_in:,}"),
        Headline("Tokens", show_count(last.tokens_out), f"of about {show_count(first.tokens_in)}"),
        Headline("Texts changed", f"{changed:,}", f"{show_count(sum(row.count.bytes_cut for row in rows))} bytes less"),
    )  # fmt: skip


def _steps(rows: Sequence[Flow]) -> Table:
    made = tuple(
        (row.step, f"{row.count.docs_out:,}", show_count(row.count.bytes_out), show_count(row.tokens_out), row.count.why)
        for row in rows
    )  # fmt: skip
    return Table("Step by step", ("step", "documents left", "bytes", "tokens", "why"), made)


def _rights(opened: Run) -> Table:
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in provenance.documents(opened.path / "data"):
        counts[origin(row["source"]), row["licence"], row["domain"]] += 1
    made = tuple((*key, f"{docs:,}") for key, docs in counts.most_common(RIGHTS))
    more = f"{len(counts) - RIGHTS:,} more rows: lab data rights" if len(counts) > RIGHTS else "As the sources state."
    return Table("Rights", ("source", "licence", "domain", "documents"), made, more)


def _benchmarks(opened: Run) -> tuple[Table, ...]:
    file = opened.path / "contamination" / "report.json"
    if not file.is_file():
        return ()
    made = tuple(
        (one["name"], "missing" if one["reason"] else "present", f"{one['items']:,}", f"{one['documents']:,}", one["source"] or one["reason"])
        for one in json.loads(file.read_text(encoding="utf-8"))["coverage"]
    )  # fmt: skip
    columns = ("benchmark", "index", "items", "documents that held one", "source, or why it is missing")
    return (Table("Decontamination", columns, made, "Of a missing one nothing can be said; paraphrases are not covered."),)  # fmt: skip


class DataSamples(Explorer):
    """Documents that a data run dropped or changed, and test items that it found, a page at a time."""

    run: str
    """Folder of a data run."""
    kind: Literal["dropped", "changed", "test items"] = knob("dropped", "Documents")
    step: str = knob("any", "Step", choices=STEPS)
    page: int = knob(1, "Page", 1, 50)

    @property
    def recipe(self) -> AnyRecipe:
        """The run's own."""
        return Run.open(self.run).recipe

    def view(self) -> View:
        """The page, or the last one there is."""
        opened = Run.open(self.run)
        every = _matches(opened) if self.kind == "test items" else samples.of_run(opened.path, self.kind, "" if self.step == "any" else self.step)  # fmt: skip
        pages = max(1, -(-len(every) // PAGE))
        at = min(self.page, pages)
        rows = every[PAGE * (at - 1) : PAGE * at]
        kinds = Counter(row["step"] for row in every)
        return View(
            title=f"Samples: {self.kind}",
            subtitle=f"{opened.recipe.name} · page {at} of {pages}",
            headlines=tuple(Headline(step, f"{number}", "samples") for step, number in kinds.items()),
            tables=(_table(self.kind, rows),),
            notes=() if every else ("There is none of these.",),
        )


def _matches(opened: Run) -> list[dict[str, Any]]:
    file = opened.path / "contamination" / "matches.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    return [{"step": json.loads(line)["benchmark"], **json.loads(line)} for line in lines if line]


def _table(kind: str, rows: Sequence[dict[str, Any]]) -> Table:
    if kind == "changed":
        made = [(_end(row["source"]), *_around(row)) for row in rows]
        return Table("Before and after", ("source", "before", "after"), tuple(made), "From shortly before the first change.")  # fmt: skip
    if kind == "test items":
        made = [(f"{row['benchmark']} {row['item']}", f"{row['score']:.2f}", row["context"][:WIDE]) for row in rows]
        return Table("Where they stood", ("item", "score", "context"), tuple(made), "The match stands between »«.")
    made = [(row["reason"], _end(row["source"]), " ".join(row["text"][:WIDE].split())) for row in rows]
    return Table("What went", ("why", "source", "text"), tuple(made), "Those of the smallest hashes for each reason.")


def _around(row: dict[str, Any]) -> tuple[str, str]:
    begin = max(0, shared_prefix(row["before"], row["after"]) - 60)
    before, after = (" ".join(row[name][begin : begin + WIDE].split()) for name in ("before", "after"))
    return before, after


def _end(source: str) -> str:
    return source[-60:]
