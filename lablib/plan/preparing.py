"""What preparing so many tokens takes: core-hours, days, disk and dollars, by step of the funnel, backwards from the tokens.

Text shrinks from step to step by keep rates that were published for web text, and each step reads what the one before left
at a rate that was measured here. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

from lablib.plan.data_rates import ALL, EXTRAS, MEASURED, ORDER, PAGES, RATES, Rate
from lablib.plan.ledger import Entry
from lablib.plan.ledger import text as told
from lablib.plan.ranges import Range
from lablib.specs import LabError, Spec
from lablib.specs.catalog import rows
from lablib.specs.units import show_count, show_dollars, show_seconds

OTHER_CORES = Range(low=0.6, mid=1.0, high=1.6)
"""Speed of another server core over the one that was measured: quiet and busy runs of one machine differ by 1.4."""
BYTES_PER_TOKEN = Range(low=3.9, mid=4.3, high=4.6)
"""UTF-8 bytes a token, separators included: English at a vocabulary of 32,768 here 3.96; Olmo 3's web pool 36.5 TB over
8.14 T tokens, 4.48 (its report, §3.4.1)."""
USD_PER_CORE_HOUR = Range(low=0.02, mid=0.045, high=0.07)
"""On-demand price of a core: a guess around two to seven cents of large clouds' general machines; give your own."""
TOGETHER = Range(low=0.7, mid=0.85, high=0.95)
"""Share of the cores' time that is used: joins run on one core while others wait, and the last parts end unevenly. A guess."""
JSON_LINES = 1.1
"""Bytes of a corpus' JSON lines and index over its text: a guess; 3.4 for four corpora, each of less
text than the one before (`MEASURED`)."""
SIGNATURES = 1.1
"""Bytes of shingles and bands over the text that near-duplicates are sought in (`MEASURED`)."""
PASSAGES = 0.86
"""Share of the bytes that taking repeated passages out leaves of Olmo 3's web text (report §3.4.1, by suffix array)."""
ONE_BY_ONE = ("html", "profanity")
"""Steps that write no corpus of their own."""
TOKEN_BYTES = 4
"""Of an id above a vocabulary of 65,536; below it is 2."""


class _Kept(NamedTuple):
    share: Range
    source: str


class Step(Spec):
    """One step of the funnel in a plan; ranges are 80 % bands."""

    name: str
    bytes_in: Range
    bytes_out: Range
    """UTF-8 text; what ``html`` reads are pages with their markup."""
    core_hours: Range
    disk: Range
    """Bytes that its product takes."""


class DataPlan(Spec):
    """What it takes to have so many tokens on disk."""

    tokens: float
    cores: int
    steps: tuple[Step, ...]
    core_hours: Range
    days: Range
    disk: Range
    """Bytes at the end, with every step's corpus kept in the cache."""
    dollars: Range
    account: tuple[Entry, ...]

    def explain(self) -> str:
        """Every number with its formula, inputs and source, as text."""
        return told(self.account)

    def rows(self) -> list[list[str]]:
        """(step, text in, text out, core-hours, disk) as they are shown."""
        return [
            [one.name, _span(one.bytes_in, _bytes), _span(one.bytes_out, _bytes), _span(one.core_hours, show_count), _span(one.disk, _bytes)]
            for one in self.steps
        ]  # fmt: skip

    def headline(self) -> dict[str, str]:
        """The totals as they are shown."""
        return {
            "tokens": show_count(self.tokens),
            "core-hours": _span(self.core_hours, show_count),
            f"time on {self.cores:,} cores": _span(self.days, _days),
            "disk": _span(self.disk, _bytes),
            "cost": _span(self.dollars, show_dollars),
        }

    def __str__(self) -> str:
        lines = [f"{label:<22} {value}" for label, value in self.headline().items()]
        return "\n".join([*lines, *("  ".join(row) for row in self.rows())])


def plan_data(
    tokens: float,
    cores: int = 1000,
    usd_per_core_hour: float | None = None,
    keep_everything: bool = False,
    also: Collection[str] = (),
) -> DataPlan:
    """The plan for `tokens` of web text, from text that was extracted already unless ``html`` is among the steps;
    `keep_everything` plans for a source that needs no filter (a finished public set): every step looks, and nothing goes but
    the markup of pages. `also` names steps beyond the usual
    (`data_rates.EXTRAS`). Raises `LabError` for no tokens or no cores, and for a step that has no rate."""
    if tokens <= 0 or cores <= 0:
        raise LabError(f"tokens={tokens:g}, cores={cores}: both must be positive")
    if unknown := [name for name in also if name not in EXTRAS]:
        raise LabError(f"also={', '.join(unknown)}: there is no such step; there are {', '.join(EXTRAS)}")
    kept = keeps()
    if keep_everything:
        kept = {**dict.fromkeys(ALL, _Kept(Range.exactly(1.0), "keep_everything")), "html": kept["html"]}
    left = BYTES_PER_TOKEN.times(tokens)
    steps: list[Step] = []
    account = [Entry("bytes_per_token", str(BYTES_PER_TOKEN), "", "", "measured here and Olmo 3's report §3.4.1")]
    for name in (name for name in reversed(ORDER) if name in RATES or name in also):
        rate = ALL[name]
        size = left if kept[name].share.mid == 1 else left.joined(kept[name].share.inverse())
        hours = size.joined(OTHER_CORES.inverse()).times(1 / (rate.mb_per_second * 1e6 * 3600))
        disk = Range.exactly(tokens * TOKEN_BYTES) if name == "tokenise" else left.times(JSON_LINES)
        disk = Range.exactly(0.0) if name in ONE_BY_ONE else disk
        if name == "near-duplicates":
            disk = disk.plus(size.times(SIGNATURES))
        steps.insert(0, Step(name=name, bytes_in=size, bytes_out=left, core_hours=hours, disk=disk))
        account += _entries(name, rate, kept[name], hours)
        left = size
    price = USD_PER_CORE_HOUR if usd_per_core_hour is None else Range.exactly(usd_per_core_hour)
    total = _sum([one.core_hours for one in steps])
    days = total.joined(TOGETHER.inverse()).times(1 / (24 * cores))
    disk, dollars = _sum([one.disk for one in steps]), total.joined(price)
    account += [
        Entry("core_hours", str(total), "sum of the steps", f"cores of {OTHER_CORES} times the measured speed", MEASURED),
        Entry("days", str(days), "core-hours / cores / share of them at work", f"{cores} cores, {TOGETHER}", "lablib/plan/preparing.py"),
        Entry("dollars", str(dollars), "core-hours × price", f"${price} a core-hour", "lablib/plan/preparing.py, a guess" if usd_per_core_hour is None else "given"),
        Entry("disk", f"{disk} bytes", "text × JSON lines of every step, signatures, ids of the shards", f"{JSON_LINES}, {SIGNATURES} bytes a byte, {TOKEN_BYTES} bytes an id", MEASURED),
    ]  # fmt: skip
    return DataPlan(tokens=tokens, cores=cores, steps=tuple(steps), core_hours=total, days=days, disk=disk, dollars=dollars, account=tuple(account))  # fmt: skip


def _entries(name: str, rate: Rate, kept: _Kept, hours: Range) -> Sequence[Entry]:
    return (
        Entry(f"{name}.kept", str(kept.share), "out / in of published funnels", "", kept.source),
        Entry(f"{name}.core_hours", str(hours), "bytes in / rate", f"{rate.mb_per_second:g} MB a CPU-second", rate.source),
    )  # fmt: skip


@cache
def keeps() -> dict[str, _Kept]:
    """Shares that steps keep of web text, from the catalogue's published funnels; the middle is the geometric mean."""
    olmo, fine, red = "Olmo 3 web (Dolma 3)", "FineWeb", "RedPajama-V2"
    none = _Kept(Range.exactly(1.0), "none published; taken as all")
    return {
        "read": _between([(olmo, 2), (red, 2)], "exact duplicates"),
        "quality": _between([(olmo, 1), (red, 1)], "rules and language"),
        "near-duplicates": _between([(olmo, 3), (fine, 1)], "MinHash"),
        **dict.fromkeys(("decontamination", "tokenise", *EXTRAS), none),
        "html": _Kept(PAGES, "text over pages: DCLM's documents over Common Crawl's pages (lablib/plan/data_rates.py)"),
        "repeated-passages": _Kept(Range.exactly(PASSAGES), "bytes by suffix array, Olmo 3 report §3.4.1 (catalogue/funnels.csv)"),
    }  # fmt: skip


def _between(places: Sequence[tuple[str, int]], what: str) -> _Kept:
    shares = {}
    for funnel, order in places:
        amounts = {int(row["order"]): float(row["amount"]) for row in rows("funnels") if row["funnel"] == funnel}
        shares[funnel] = amounts[order] / amounts[order - 1]
    low, high = min(shares.values()), max(shares.values())
    source = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    return _Kept(Range(low=low, mid=math.sqrt(low * high), high=high), f"{what}: {source} (catalogue/funnels.csv)")


def _sum(parts: Sequence[Range]) -> Range:
    """Parts that err together: their bounds add."""
    total = Range.exactly(0.0)
    for one in parts:
        total = total.plus(one)
    return total


def _span(value: Range, show: object) -> str:
    assert callable(show)
    return (
        show(value.mid) if value.low == value.high else f"{show(value.mid)} ({show(value.low)} to {show(value.high)})"
    )


def _days(number: float) -> str:
    return show_seconds(number * 86400)


def _bytes(number: float) -> str:
    """6.5e13 → ``"65TB"``, 1.2e15 → ``"1.2PB"``."""
    return f"{number / 1e15:.3g}PB" if number >= 1e15 else f"{show_count(number).replace('B', 'G')}B"
