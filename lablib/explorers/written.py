"""What a model wrote in one run: how much was kept, why the rest was not, and how diverse it is beside its prompts' text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lablib import charts
from lablib.charts import Frame
from lablib.data import generations, written
from lablib.data.mixing.collapse import Alarm, Diversity, drift
from lablib.data.synthetic import FEWEST
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.runs import Run
from lablib.specs import AnyRecipe, LabError, Synthesize
from lablib.specs.units import show_count

PAGE = 6
"""Samples on a screen."""
WIDE = 280
"""Characters of each."""


class Written(Explorer):
    """What a model wrote in one run: how much was kept, why the rest was not, how diverse it is beside its prompts' text, and
    samples a page at a time."""

    run: str
    """Folder of a finished Synthesize run."""
    drift: float = knob(generations.TOLERANCE, "Loss of diversity that alarms", 0.01, 0.95, step=0.01)
    kind: Literal["kept", "refused"] = knob("kept", "Completions")
    page: int = knob(1, "Page", 1, 50)

    @classmethod
    def of(cls, run: Run) -> Written:
        """The screen at the run's own ``drift``, as near as the knob goes. Raises `LabError` for a run that is no Synthesize
        run's."""
        if not isinstance(run.recipe, Synthesize):
            raise LabError(f"run {run.id} is a {run.recipe.stage} run; give a synthesize run")
        return cls(run=str(run.path), drift=min(max(run.recipe.drift, 0.01), 0.95))

    @property
    def recipe(self) -> AnyRecipe:
        """The run's own, with this drift."""
        return Run.open(self.run).recipe.replace(drift=self.drift)

    def view(self) -> View:
        """Raises `LabError` where the run has written no corpus."""
        opened = Run.open(self.run)
        facts = written.require(opened.path)
        beside = Beside.of(facts["diversity"], self.drift)
        return View(
            title="What the model wrote",
            subtitle=f"{opened.recipe.name} · {opened.id}",
            headlines=(
                Headline("Kept", f"{facts['documents']:,}", f"of {facts['asked']:,} completions, {show_count(facts['bytes'])} bytes"),
                Headline("Generation", f"{facts['generation']}", f"its model learned from generation {facts['trained_on']}"),
                beside.headline,
            ),
            charts=(charts.written(),),
            frames=fates(facts),
            tables=(*beside.tables, self._samples(opened.path)),
            notes=() if beside.tables else (f"Under {FEWEST} words are too few to tell how diverse they are.",),
        )  # fmt: skip

    def _samples(self, run: Path) -> Table:
        skip = PAGE * (self.page - 1)
        if self.kind == "kept":
            rows = tuple((row["source"][-60:], f"{row['generation']}", _brief(row["text"])) for row in written.kept(run, PAGE, skip))  # fmt: skip
            return Table("Kept", ("source", "generation", "text"), rows, f"Page {self.page}, in the order of writing.")
        gone = tuple((row["reason"], _brief(row["text"])) for row in written.refused(run, PAGE, skip))
        return Table("Refused", ("why", "text"), gone, f"Page {self.page}; of duplicates one was kept.")


def _brief(text: str) -> str:
    return " ".join(text[:WIDE].split())


def fates(facts: Mapping[str, Any]) -> dict[str, Frame]:
    """The frame of `lablib.charts.written`."""
    refused = sorted(facts["refused"].items(), key=lambda one: -one[1])
    rows = [("kept", facts["documents"]), *refused]
    return {
        "written": {
            "fate": [name for name, _ in rows],
            "completions": [number for _, number in rows],
            "kept": [not at for at in range(len(rows))],
        }
    }


class Beside:
    """The diversity of what was written beside that of its prompts' own text."""

    def __init__(self, measured: Mapping[str, Diversity], alarms: Sequence[Alarm]) -> None:
        """`measured` has "prompts" and "written", or nothing."""
        self.measured, self.alarms = measured, alarms

    @classmethod
    def of(cls, told: Mapping[str, Any], tolerance: float | None = None) -> Beside:
        """As a run's manifest tells it; None takes the alarms that the run itself raised."""
        names = ("prompts", "written")
        measured = {name: generations.parsed(told[name]) for name in names if name in told}
        if tolerance is None or not measured:
            return cls(measured, [Alarm(**one) for one in told["alarms"]])
        return cls(measured, drift(measured["prompts"], measured["written"], tolerance))

    @property
    def headline(self) -> Headline:
        """The worst loss, or that there is none."""
        if not self.measured:
            return Headline("Diversity", show.NONE, "too few words to tell")
        if not self.alarms:
            return Headline("Diversity", "no alarm", "near that of the prompts' text", "good")
        worst = max(self.alarms, key=lambda one: one.change)
        return Headline("Diversity", f"alarm: −{worst.change:.0%}", f"{worst.measure}, of the prompts' text", "bad")

    @property
    def tables(self) -> tuple[Table, ...]:
        """A row a measure; none where nothing was measured."""
        if not self.measured:
            return ()
        raised = {one.measure for one in self.alarms}
        before, after = self.measured["prompts"], self.measured["written"]
        rows = tuple(
            (name, f"{before.values[name]:.3f}", f"{after.values[name]:.3f}", f"{left - 1:+.0%}", "alarm" if name in raised else "")
            for name, left in after.left_of(before).items()
        )  # fmt: skip
        words = self.measured["written"].words
        columns = ("measure", "prompts' text", "written", "diversity", "")
        return (Table("Beside the prompts' own text", columns, rows, f"On samples of {words:,} words each; each prompt's text is cut to the mean length of what was written."),)  # fmt: skip
