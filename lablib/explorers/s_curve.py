"""The S-curve: what a near-duplicate setting can find, what it cannot, and what it costs."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.charts.sample import rounded
from lablib.data.dedup import theory
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.view import Headline, Table, View
from lablib.specs import Prepare
from lablib.specs.dedup import RECALL, Dedup, reach

RATES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Shares of changed words that the table lists."""
GRID = np.arange(400) / 1000
"""Shares of changed words that are tried."""
POINTS = 101
"""Of the curve over similarity."""


class SCurve(Explorer):
    """Which copies go: similarity, bands and shingles against how much of a copy was changed."""

    threshold: float = knob(0.7, "Least Jaccard similarity", 0.3, 0.95, step=0.05)
    bands: int = knob(16, "Bands", 1, 128)
    rows: int = knob(6, "Hashes of a band", 1, 16)
    ngram: int = knob(5, "Words of a shingle", 1, 20)
    rate: float = knob(3.0, "Words changed", 0, 40, step=0.5, unit="%")
    words: int = knob(500, "Words of a document", 50, 50_000, log=True)

    @cached_property
    def dedup(self) -> Dedup:
        """The settings that the knobs describe. Raises `LabError` where they could find nothing."""
        return Dedup(threshold=self.threshold, ngram=self.ngram, bands=self.bands, rows=self.rows)

    @property
    def recipe(self) -> Prepare:
        """A preparation of the default corpus that removes near-duplicates by these settings."""
        return Prepare(name="prepare", dedup=self.dedup)

    def removed(self, rate: float) -> float:
        """Share of the copies with a share `rate` of their words changed that go."""
        spec = self.dedup
        return theory.found(rate, spec.ngram, self.bands, self.rows, spec.threshold, self.words)

    def reaches(self, share: float) -> float | None:
        """The largest share of words, in thousandths, of whose copies at least `share` go; None where even equal
        copies may stay."""
        enough = GRID[np.asarray(self._removed) >= share]
        return float(enough.max()) if len(enough) else None

    @cached_property
    def _removed(self) -> list[float]:
        return [self.removed(float(rate)) for rate in GRID]

    def view(self) -> View:
        """Both curves, the table by share of words changed, and in words what the setting can find."""
        self.dedup  # noqa: B018 (a setting that finds nothing is refused here)
        return View(
            title=f"Near-duplicates at {self.threshold:g}: {self.bands} bands of {self.rows}",
            subtitle=f"{self.ngram}-word shingles · documents of {self.words:,} words",
            headlines=self._headlines(),
            charts=FIGURES,
            frames=self._frames(),
            tables=(self._table(),),
            notes=self._notes(),
        )

    def _headlines(self) -> tuple[Headline, ...]:
        rate, target = self.rate / 100, reach(self.threshold)
        share, promised = self.removed(rate), float(theory.catch(target, self.bands, self.rows))
        price = theory.cost(self.bands, self.rows, self.threshold)
        return (
            Headline("Copies that go", show.share(share), f"with {self.rate:g} % of words changed"),
            Headline(
                f"Pairs at {target:.2g} that are found",
                show.share(promised),
                f"{'at least' if promised >= RECALL else 'below'} {100 * RECALL:g} %",
                "good" if promised >= RECALL else "warn",
            ),
            Headline("Rises at", f"{theory.steepest(self.bands, self.rows):.2f}", "Jaccard similarity, (1/b)^(1/r)"),
            Headline("Hash functions", f"{price.hashes}", f"{price.document_bytes} bytes a document on disk"),
            Headline(
                "Compared for nothing", show.share(price.needless), f"of pairs at {self.threshold / 2:.2g} similarity"
            ),
        )

    def _frames(self) -> dict[str, Frame]:
        jaccard, rates = np.linspace(0, 1, POINTS), GRID[::4]
        proposed = theory.catch(jaccard, self.bands, self.rows)
        chosen = self.rate / 100
        here = float(theory.edited_jaccard(chosen, self.ngram))
        return {
            "catch": _frame(
                jaccard=jaccard, proposed=proposed, removed=np.where(jaccard >= self.threshold, proposed, 0)
            ),
            "threshold": {"jaccard": [self.threshold]},
            "copy": _frame(jaccard=[here], proposed=[float(theory.catch(here, self.bands, self.rows))]),
            "edits": _frame(
                rate=100 * rates,
                proposed=theory.catch(theory.edited_jaccard(rates, self.ngram), self.bands, self.rows),
                removed=self._removed[::4],
            ),
            "rate": {"rate": [self.rate]},
            "chosen": _frame(rate=[self.rate], removed=[self.removed(chosen)]),
        }

    def _table(self) -> Table:
        rows = []
        for rate in RATES:
            jaccard = float(theory.edited_jaccard(rate, self.ngram))
            proposed = float(theory.catch(jaccard, self.bands, self.rows))
            rows.append((f"{100 * rate:g} %", f"{jaccard:.2f}", show.share(proposed), show.share(self.removed(rate))))
        return Table(
            "By words changed",
            ("Words changed", "Mean Jaccard", "Proposed at the mean", "Go"),
            tuple(rows),
            "J = q / (2 − q) with q = (1 − p)ⁿ of the shingles untouched; who goes is also verified exactly.",
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [f"Finds {self._said(RATES[0])}, {self._said(RATES[2])} and {self._said(RATES[3])}."]
        sure, blind = self.reaches(RECALL), self.reaches(0.01)
        if sure is None:
            notes.append(
                f"Even unchanged copies are found with less than {100 * RECALL:g} %: take more bands or fewer rows."
            )
        else:
            notes.append(
                f"At least {100 * RECALL:g} % of the copies with up to {100 * sure:.3g} % of words changed go."
            )
        if blind is not None and blind < GRID[-1]:
            notes.append(f"With more than {100 * blind:.3g} % of words changed fewer than 1 in 100 go: to find those, {self._remedy()}.")  # fmt: skip
        notes.append(
            "Copies that are translated or told in other words have no shingles in common and are never found."
        )
        return tuple(notes)

    def _said(self, rate: float) -> str:
        return f"{show.share(self.removed(rate))} of the copies with {100 * rate:g} % of words changed"

    def _remedy(self) -> str:
        """What would find more: the threshold where bands propose what verification refuses, else the bands."""
        bound = float(theory.catch(self.threshold, self.bands, self.rows))
        lower = "lower the threshold" if bound >= 0.5 else "take more bands or fewer rows"
        return f"{lower} or shorten the shingles" if self.ngram > 3 else lower


def _frame(**columns: object) -> Frame:
    return {name: [rounded(float(value)) for value in np.asarray(values)] for name, values in columns.items()}


FIGURES: tuple[Figure, ...] = (charts.s_curve(), charts.edit_curve())
