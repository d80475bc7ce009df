"""The funnel: thresholds move, and what each rule drops from a corpus is counted again without reading a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lablib.charts import Figure, Frame
from lablib.charts.funnel import funnel, rules
from lablib.charts.sample import rounded
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.runs import Run
from lablib.specs import LabError, Prepare
from lablib.specs.catalog import rows
from lablib.specs.cleaning import PRESETS, Clean, Preset, Splitter
from lablib.specs.units import show_count

if TYPE_CHECKING:
    import polars as pl

    from lablib.data.quality import Verdicts

SAMPLE = "sample"
PUBLISHED = tuple(dict.fromkeys(row["funnel"] for row in rows("funnels")))
SPLITTERS: tuple[Splitter, ...] = ("whitespace", "words", "tokens")
SHOWN = 8
"""Dropped documents in the table."""
FIGURES: tuple[Figure, ...] = (funnel(), rules())


class FunnelPlan(Explorer):
    """Which documents stay under a preset's rules with these thresholds. A threshold moves its rule where the preset has
    that rule; the language and personal data are asked whatever the preset."""

    corpus: str = SAMPLE
    """``sample``, or a corpus whose signals are stored (`lablib.data.quality.signals`): its name in the lab's cache, or its
    folder."""
    preset: Preset = knob("gopher", "Rules")
    splitter: Splitter = knob("whitespace", "A word is")
    min_words: int = knob(50, "Fewest words", 0, 1000, step=10)
    max_word_length: float = knob(10.0, "Longest mean word", 4, 20, step=0.5, unit="characters")
    min_alphabetic_words: float = knob(0.8, "Words with a letter", 0, 1, step=0.01)
    min_stop_words: int = knob(2, "Stop words", 0, 8)
    max_duplicate_lines: float = knob(0.3, "Repeated lines", 0, 1, step=0.01)
    max_top_2gram: float = knob(0.2, "Text in one 2-gram", 0, 1, step=0.01)
    max_duplicate_5gram: float = knob(0.15, "Text in repeated 5-grams", 0, 1, step=0.01)
    min_terminal_lines: float = knob(0.12, "Lines with an end mark", 0, 1, step=0.01)
    max_repeated_line_chars: float = knob(0.01, "Text in repeated lines", 0, 1, step=0.01)
    language: Literal["any", "en"] = knob("any", "Language")
    min_language_score: float = knob(0.65, "Language score", 0, 1, step=0.05)
    personal: Literal["count", "drop"] = knob("count", "E-mail addresses")
    max_emails: int = knob(3, "Most addresses", 0, 50)
    published: str = knob(PUBLISHED[0], "Beside it", choices=PUBLISHED)

    @property
    def clean(self) -> Clean:
        """The thresholds that the screen shows."""
        wanted = self.language != "any"
        moved = {name: getattr(self, name) for name in MOVED if name in PRESETS[self.preset]}
        spoken = {"languages": (self.language,) if wanted else (), "min_language_score": self.min_language_score if wanted else None}  # fmt: skip
        counted = {"max_emails": self.max_emails} if self.personal == "drop" else {}
        return Clean(preset=self.preset, splitter=self.splitter, **moved, **spoken, **counted)

    @property
    def recipe(self) -> Prepare:
        """Data preparation with these thresholds; `corpus` here names stored signals, so the recipe's is yours to give."""
        return Prepare(clean=self.clean)

    @classmethod
    def of(cls, run: Run) -> FunnelPlan:
        """The screen of the documents that a data run read before its funnel, at its recipe's preset and splitter. Raises
        `LabError` for another run, or one whose recipe has no `clean`."""
        clean = getattr(run.recipe, "clean", None)
        read = [event["key"] for event in run.events() if event["kind"] == "corpus" and "key" in event]
        if clean is None or not read:
            raise LabError(f"run {run.id} has measured no signals; give a prepare run with clean=…")
        moved = {name: getattr(clean, name) for name in MOVED if getattr(clean, name) is not None}
        return cls(corpus=read[-1], preset=clean.preset, splitter=clean.splitter, **moved)

    def view(self) -> View:
        """Headlines, the funnel beside a published one, each rule's effect, and some of what was dropped.

        Raises `LabError` where the corpus has no stored signals.
        """
        from lablib.data.quality import verdicts

        table, clean = _table(self.corpus, self.splitter), self.clean
        told = verdicts(table, clean)
        return View(
            title="What the rules keep",
            subtitle=f"{len(table):,} documents · {'real texts of the core corpus' if self.corpus == SAMPLE else Path(self.corpus).name[:12]}",
            headlines=self._headlines(table, told),
            charts=FIGURES,
            frames={"funnel": _funnel(told, len(table), self.published), "rules": _rules(told, len(table))},
            tables=(_effects(told), _dropped(table, told), _published(self.published)),
            notes=self._notes(),
        )

    def _headlines(self, table: pl.DataFrame, told: Verdicts) -> tuple[Headline, ...]:
        kept, size = told.kept, table["bytes"].to_numpy()
        worst = max(told.effects, key=lambda effect: effect.docs, default=None)
        others = {name: _kept(self.corpus, name, self.clean) for name in SPLITTERS}
        words = ", ".join(f"{name} {show.share(share)}" for name, share in others.items() if share is not None)
        return (
            Headline("Documents kept", show.share(float(kept.mean())), f"{int(kept.sum()):,} of {len(kept):,}"),
            Headline("Text kept", show.share(float(size[kept].sum() / max(1, size.sum()))), f"{show_count(float(size[kept].sum()))} bytes"),
            Headline("Hardest rule", worst.says if worst and worst.docs else show.NONE, f"{worst.docs:,} documents" if worst else ""),
            Headline("By splitter", words, "the same thresholds; the word splitter alone"),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        idle = [str(type(self).model_fields[name].json_schema_extra["knob"]["label"]) for name in MOVED if name not in PRESETS[self.preset]]  # type: ignore[index, call-overload]  # fmt: skip
        still = (f"Preset {self.preset!r} has no rule for: {', '.join(idle)}.",) if idle else ()
        return (*still, "Published funnels began with web pages, most of which are no text; a clean corpus loses less.")


MOVED = ("min_words", "max_word_length", "min_alphabetic_words", "min_stop_words", "max_duplicate_lines", "max_top_2gram",
         "max_duplicate_5gram", "min_terminal_lines", "max_repeated_line_chars")  # fmt: skip
"""Knobs that are thresholds of `Clean` under the same name."""


def _table(corpus: str, splitter: Splitter) -> pl.DataFrame:
    """Signals of the sample or of a corpus, all its parts, which are named by content and so never change."""
    import polars as pl

    from lablib.data import cache
    from lablib.data.corpus import Corpus
    from lablib.data.quality import table
    from lablib.data.quality.sample import sample

    if corpus == SAMPLE:
        return sample(splitter)
    read = Corpus(cache.folder("corpora", corpus))
    lost = Path(corpus).name == corpus and not cache.has("corpora", corpus)
    if lost or not (read.folder / "corpus.json").is_file():
        raise LabError(f"corpus={corpus!r} is no corpus of the lab's cache and no folder with one; give {SAMPLE!r}, or take FunnelPlan.of(run)")  # fmt: skip
    keys = [table.key(part, splitter) for part in read.parts]
    if not all(cache.has("signals", key) for key in keys):
        raise LabError(f"corpus={corpus!r} has no signals by splitter {splitter!r}; measure it with lablib.data.quality.signals(corpus, {splitter!r})")  # fmt: skip
    return pl.concat([table.load(cache.folder("signals", key)) for key in keys])


def _kept(corpus: str, splitter: Splitter, clean: Clean) -> float | None:
    """Share that stays with another splitter; None where that one was not measured."""
    from lablib.data.quality import verdicts

    try:
        table = _table(corpus, splitter)
    except LabError:
        return None
    return float(verdicts(table, clean).kept.mean())


def _funnel(told: Verdicts, documents: int, beside: str) -> Frame:
    """Steps of ours by the family of rules, then those of the published one."""
    left, made = documents, [("here: documents", "yours", 1.0, f"{documents:,} documents")]
    for family, effects in groupby(told.effects, lambda effect: effect.says.partition(":")[0]):
        left -= sum(effect.docs for effect in effects)
        made.append((f"here: {family}", "yours", left / max(1, documents), f"{left:,} documents"))
    return stages([*made, *published(beside)])


Stage = tuple[str, str, float, str]
"""Step, funnel, share left of what went into the first step, and how much that is in words."""


def published(name: str) -> list[Stage]:
    """The steps of a funnel of the catalogue."""
    steps = [row for row in rows("funnels") if row["funnel"] == name]
    first = float(steps[0]["amount"])
    return [(row["step"], name, float(row["amount"]) / first, f"{show_count(float(row['amount']))} {row['unit']}") for row in steps]  # fmt: skip


def stages(made: Sequence[Stage]) -> Frame:
    """The frame of `lablib.charts.funnel`."""
    step, funnels, share, words = map(list, zip(*made, strict=True))
    return {"step": step, "funnel": funnels, "share": [rounded(float(value)) for value in share], "words": words}


def _rules(told: Verdicts, documents: int) -> Frame:
    met = [effect for effect in told.effects if effect.docs_alone]
    return {
        "rule": [effect.says for effect in met],
        "alone": [rounded(effect.docs_alone / documents) for effect in met],
        "first": [rounded(effect.docs / documents) for effect in met],
    }


def _effects(told: Verdicts) -> Table:
    columns = ("rule", "keeps", "break it", "dropped here", "bytes dropped", "source")
    made = tuple(
        (effect.says, effect.limit, f"{effect.docs_alone:,}", f"{effect.docs:,}", show_count(effect.bytes), effect.source)
        for effect in told.effects
    )  # fmt: skip
    return Table("What each rule drops", columns, made, "In the order in which they are asked.")


def _dropped(table: pl.DataFrame, told: Verdicts) -> Table:
    """Of each reason the document of the smallest hash, then more, until the table is full."""
    gone = sorted((name, index) for index, name in enumerate(table["sha256"]) if told.first[index] >= 0)
    turn: Counter[int] = Counter()
    order = []
    for name, index in gone:
        turn[int(told.first[index])] += 1
        order.append((turn[int(told.first[index])], name, index))
    excerpts = table["excerpt"] if "excerpt" in table.columns else table["sha256"]
    made = tuple(
        (excerpts[index], table["domain"][index], told.effects[told.first[index]].says)
        for _, _, index in sorted(order)[:SHOWN]
    )
    return Table("Some of what was dropped", ("document", "domain", "why"), made)


def _published(name: str) -> Table:
    steps = [row for row in rows("funnels") if row["funnel"] == name]
    made = tuple(
        (row["step"], f"{show_count(float(row['amount']))} {row['unit']}",
         show.share(float(row["amount"]) / float(steps[0]["amount"])), row["level"], row["source"])
        for row in steps
    )  # fmt: skip
    return Table(name, ("step", "left", "of the first", "seen in", "source"), made, "As published.")
