"""Text that models wrote in a prepared corpus: what caps leave of it, and how diverse each generation still is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lablib import charts
from lablib.charts import Frame
from lablib.charts.sample import rounded
from lablib.charts.synthetic import FATES
from lablib.data import generations, provenance
from lablib.data.generations import Generations, Share
from lablib.data.mixing.collapse import Alarm, Diversity, Origin, guard
from lablib.data.synthetic import FEWEST
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.runs import Run
from lablib.specs import AnyRecipe, Caps
from lablib.specs.units import show_count

CAPS = 41
"""Points of the curve over the cap on the corpus, denser where it is small."""
CAVEAT = "People's text here is all that the corpus has of generation 0, whatever its domain; a run that writes compares with its own prompts' text."


class Synthetic(Explorer):
    """Caps on models' text, asked again of a prepared corpus from its documents' provenance, without reading a text."""

    run: str
    """Folder of a finished data run."""
    depth: int = knob(1, "Deepest generation", 0, 5)
    document: float = knob(1.0, "Most of one document", 0, 1, step=0.05)
    corpus: float = knob(0.5, "Most of all tokens", 0, 1, step=0.005)
    drift: float = knob(generations.TOLERANCE, "Loss of diversity that alarms", 0.01, 0.95, step=0.01)

    @classmethod
    def of(cls, run: Run) -> Synthetic:
        """The screen at the run's own caps, or the usual ones where its recipe sets none."""
        caps = getattr(run.recipe, "synthetic", None) or Caps()
        return cls(run=str(run.path), depth=min(caps.depth, 5), document=caps.document, corpus=caps.corpus)

    @property
    def caps(self) -> Caps:
        """What the knobs say."""
        return Caps(depth=self.depth, document=self.document, corpus=self.corpus)

    @property
    def recipe(self) -> AnyRecipe:
        """The run's own, with these caps: it refuses to make data that breaks one."""
        return Run.open(self.run).recipe.replace(synthetic=self.caps)

    def view(self) -> View:
        """Raises `LabError` where the folder holds no prepared data."""
        opened = Run.open(self.run)
        data = opened.artefact_path("data")
        whole, domains = _origins(data, (data / "manifest.json").stat().st_mtime_ns)
        told = generations.read(opened.path)
        measured = told.diversity if told else {}
        rows, alarms = generations.shares(whole, self.caps), generations.alarms(measured, self.drift)
        return View(
            title="What the caps leave of models' text",
            subtitle=f"{opened.recipe.name} · {opened.id}",
            headlines=(*_headlines(whole, self.caps), _alarmed(measured, alarms)),
            charts=(charts.generations(), charts.cap_curve(), *((charts.generation_diversity(),) if measured else ())),
            frames={**stacked(rows), **_curve(whole, self.caps), **diverse(measured, self.drift)},
            tables=(_domains(domains, self.caps), *((diversities(measured, alarms),) if measured else ())),
            notes=(*(generations.said(depth, found) for depth, found in alarms.items()), *unmeasured(rows, measured), CAVEAT if measured else _silent(told)),
        )  # fmt: skip


@lru_cache(maxsize=4)
def _origins(data: Path, changed: int) -> tuple[Origin, dict[str, Origin]]:
    """Of a prepared folder whose manifest was last written at `changed`: all domains together, and each."""
    del changed
    found = provenance.origins(data)
    return provenance.joined(list(found.values())), found


def _headlines(whole: Origin, caps: Caps) -> tuple[Headline, ...]:
    told = guard(whole, caps)
    gone = {cap: number for cap, number in told.dropped.items() if number}
    why = ", ".join(f"{number:,} by {cap}" for cap, number in gone.items())
    return (
        Headline("Synthetic now", show.share(whole.synthetic), f"of {show_count(float(whole.tokens.sum()))} tokens"),
        Headline("Under the caps", show.share(told.synthetic), f"of {show_count(float(whole.tokens[told.keep].sum()))} tokens"),
        Headline("Documents that break a cap", f"{sum(gone.values()):,}", why or f"none of {len(whole.tokens):,}", "warn" if gone else "good"),
        Headline("Deepest generation", f"{int(whole.depth.max(initial=0))}", f"cap {caps.depth}"),
    )  # fmt: skip


def _alarmed(measured: Mapping[int, Diversity], alarms: Mapping[int, list[Alarm]]) -> Headline:
    if not measured:
        return Headline("Diversity", show.NONE, "not measured")
    if not alarms:
        return Headline("Diversity", "no alarm", "every generation is near people's text", "good")
    depth, worst = max(((depth, one) for depth, found in alarms.items() for one in found), key=lambda one: one[1].change)  # fmt: skip
    return Headline("Diversity", f"alarm: −{worst.change:.0%}", f"{worst.measure} of generation {depth}", "bad")


def _silent(told: Generations | None) -> str:
    why = "there is too little text of models or of people" if told else "no model wrote any of the text, or it was prepared before diversity was measured"  # fmt: skip
    return f"Diversity by generation is not known: {why}."


def unmeasured(rows: Sequence[Share], measured: Mapping[int, Diversity]) -> list[str]:
    """A sentence where some generations have too little text to measure, though others have not."""
    short = [str(row.generation) for row in rows if measured and row.generation not in measured]
    return [f"Generation {', '.join(short)}: under {FEWEST} words of training text, too few to tell how diverse they are."] if short else []  # fmt: skip


def stacked(rows: Sequence[Share]) -> dict[str, Frame]:
    """The frame of `lablib.charts.generations`."""
    cells = [
        (f"generation {row.generation} ({show_count(row.tokens)})", fate, rounded(tokens / max(1, row.tokens)), tokens, order)
        for row in rows
        for order, (fate, tokens) in enumerate(zip(FATES, (row.stays, row.depth, row.document, row.corpus), strict=True))
        if tokens or not order
    ]  # fmt: skip
    names = ("generation", "fate", "share", "tokens", "order")
    return {"generations": {name: [cell[at] for cell in cells] for at, name in enumerate(names)}}


def _curve(whole: Origin, caps: Caps) -> dict[str, Frame]:
    """The frames of `lablib.charts.cap_curve`."""

    def left(cap: float) -> float:
        keep = guard(whole, caps.replace(corpus=cap)).keep
        return float((whole.tokens * whole.share)[keep].sum())

    at = sorted({*(np.linspace(0, 1, CAPS) ** 2).round(6).tolist(), caps.corpus, whole.synthetic})
    return {
        "curve": {"cap": [rounded(cap) for cap in at], "tokens": [rounded(left(cap)) for cap in at]},
        "cap": {"cap": [caps.corpus], "tokens": [rounded(left(caps.corpus))]},
        "found": {"cap": [rounded(whole.synthetic)]},
    }


def diverse(measured: Mapping[int, Diversity], tolerance: float) -> dict[str, Frame]:
    """The frames of `lablib.charts.generation_diversity`; empty where nothing was measured."""
    if not measured:
        return {}
    cells = [
        (depth, name, rounded(left), rounded(one.values[name]))
        for depth, one in measured.items()
        for name, left in one.left_of(measured[0]).items()
    ]
    names = ("generation", "measure", "left", "value")
    made: Frame = {name: [cell[at] for cell in cells] for at, name in enumerate(names)}
    return {"diversity": made, "floor": {"left": [rounded(1 - tolerance)]}}


def diversities(measured: Mapping[int, Diversity], alarms: Mapping[int, Sequence[Alarm]]) -> Table:
    """Each generation's diversity, and what of it raised the alarm."""
    orders = sorted({order for one in measured.values() for order in one.distinct})
    rows = tuple(
        (
            f"{depth}",
            *(f"{one.distinct[order]:.3f}" for order in orders),
            f"{one.compression:.2f}",
            ", ".join(f"{alarm.measure} −{alarm.change:.0%}" for alarm in alarms.get(depth, ())) or ("" if depth == 0 else "none"),
        )
        for depth, one in measured.items()
    )  # fmt: skip
    words = next(iter(measured.values())).words
    columns = ("generation", *(f"distinct-{order}" for order in orders), "compression", "alarms")
    return Table("Diversity by generation", columns, rows, f"On samples of {words:,} words each. Compression is bytes over zlib's: higher is more repetitive.")  # fmt: skip


def _domains(found: Mapping[str, Origin], caps: Caps) -> Table:
    keep = guard(provenance.joined(list(found.values())), caps).keep
    rows, at = [], 0
    for name, one in found.items():
        mine = keep[at : at + len(one.tokens)]
        at += len(mine)
        rows.append((name, show_count(float(one.tokens.sum())), show.share(one.synthetic), f"{int(one.depth.max(initial=0))}", show_count(float(one.tokens[mine].sum())), f"{int((~mine).sum()):,}"))  # fmt: skip
    columns = ("domain", "tokens", "synthetic", "deepest generation", "tokens left", "documents that go")
    return Table("By domain", columns, tuple(rows))
