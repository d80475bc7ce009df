"""What a pretraining has read of each domain beside what was planned, how often, and its held-out loss: frames and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lablib import charts
from lablib.charts import Frame
from lablib.charts.mixture import labels
from lablib.explorers import show
from lablib.explorers.view import Table
from lablib.plan.reading import Reading, phased, readings
from lablib.plan.repeats import WORTHWHILE_EPOCHS
from lablib.runs import Run
from lablib.specs import Pretrain
from lablib.specs.batching import Steps
from lablib.specs.units import show_count

INTERVALS = 40
"""Pieces of a run in which its mixture is shown: fewer than pixels, so that a step's few sequences even out."""
Rows = Sequence[dict[str, Any]]


def frames(run: Run, train: Rows, heldout: Rows, points: int) -> dict[str, Frame]:
    """``domain_loss``, ``mixture_read``, ``mixture_plan`` (as `lablib.charts` draws them) and ``domains``, a row a domain, of a
    pretraining's rows by step; empty where it logs nothing by domain. `points` is the most of all lines together."""
    recipe = run.recipe
    if not isinstance(recipe, Pretrain):
        return {}
    read, known = _named(train[-1:], "tokens."), _named(heldout[-1:], "loss.")
    if not read and not known:
        return {}
    reads = readings(recipe, run.path.parent, run.path)
    order = tuple(dict.fromkeys([*(one.domain for one in reads), *read, *known]))
    found = {"domains": _state(reads, train[-1], read)} if read else {}
    if len(known) > 1:
        found["domain_loss"] = _losses(heldout, [name for name in order if name in known], labels(order), points)
    if len(read) > 1:
        named, plan = labels([name for name in order if name in read]), phased(recipe, run.path.parent, run.path)
        found["mixture_read"] = _read(train, named)
        found["mixture_plan"] = _plan(plan, recipe.cut, int(train[-1]["step"]), named)
    return {name: frame for name, frame in found.items() if any(frame.values())}


def _named(rows: Rows, prefix: str) -> list[str]:
    return sorted(key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix))


def stack(shares: Mapping[str, float], named: Mapping[str, str]) -> list[tuple[str, float, int]]:
    """(Label, share, place) of each label, the shares of domains that have one in common added up."""
    total = dict.fromkeys(named.values(), 0.0)
    for name, label in named.items():
        total[label] += shares.get(name, 0.0)
    return [(label, share, place) for place, (label, share) in enumerate(total.items())]


def _frame(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Frame:
    made = list(rows)
    return charts.sample.brief({name: [row[place] for row in made] for place, name in enumerate(columns)})


def _losses(rows: Rows, order: Sequence[str], named: Mapping[str, str], points: int) -> Frame:
    lines = {name: charts.series(rows, f"loss.{name}", max(20, points // len(order))) for name in order}
    made = [(step, name, named[name], loss) for name, line in lines.items() for step, loss in zip(*line.values(), strict=True)]  # fmt: skip
    return _frame(("step", "name", "domain", "loss"), made)


def _read(rows: Rows, named: Mapping[str, str]) -> Frame:
    """Shares of what was read in each interval, at its end; the first ones also at step 0."""
    size = min(INTERVALS, len(rows))
    ends = [rows[(number + 1) * len(rows) // size - 1] for number in range(size)]
    made: list[tuple[Any, ...]] = []
    before: Mapping[str, Any] = {}
    for end in ends:
        tokens = {name: max(0, end.get(f"tokens.{name}", 0) - before.get(f"tokens.{name}", 0)) for name in named}
        if whole := sum(tokens.values()):
            shares = stack({name: count / whole for name, count in tokens.items()}, named)
            made += [(step, *row) for step in (*((0,) if not made else ()), end["step"]) for row in shares]
        before = end
    return _frame(("step", "domain", "share", "order"), made)


def _plan(plan: Sequence[tuple[float, Mapping[str, float]]], cut: Steps, now: int, named: Mapping[str, str]) -> Frame:
    """Upper bounds of the planned shares at the beginning of each phase until now, and now; the last domain's is the whole."""
    begun = [(cut.reached(start), shares) for start, shares in plan if cut.reached(start) < now]
    made: list[tuple[Any, ...]] = []
    for step, shares in [*begun, *((now, shares) for _, shares in begun[-1:])]:
        upto = 0.0
        for label, share, _ in stack(shares, named)[:-1]:
            upto += share
            made.append((step, label, upto))
    return _frame(("step", "domain", "upto"), made)


def _state(reads: Sequence[Reading], last: Mapping[str, Any], read: Sequence[str]) -> Frame:
    plan = {one.domain: one for one in reads}
    tokens = {name: last[f"tokens.{name}"] for name in (*(n for n in plan if n in read), *(n for n in read if n not in plan))}  # fmt: skip
    whole = max(1, sum(tokens.values()))
    made = []
    for name, count in tokens.items():
        one = plan.get(name)
        passes = count / one.unique if one and one.unique else None
        made.append((name, one.share if one else None, count / whole, count, passes, one.epochs if one else None))
    return _frame(("domain", "planned", "share", "tokens", "passes", "passes_planned"), made)


def table(found: Mapping[str, Frame]) -> Table | None:
    """The frame ``domains`` as a table; None where there is none."""
    if "domains" not in found:
        return None
    rows = []
    for name, planned, share, tokens, passes, whole in zip(*found["domains"].values(), strict=True):
        told = (show.NONE if value is None else f"{value:.2f}" for value in (passes, whole))
        rows.append((name, show.share(planned), show.share(share), show_count(tokens), *told))
    columns = ("domain", "planned", "read", "tokens", "passes so far", "passes in all")
    return Table("What was read of each domain", columns, tuple(rows), "Shares of the tokens trained on; passes over what was prepared.")  # fmt: skip


def repeats(found: Mapping[str, Frame]) -> list[str]:
    """A sentence for each domain that is, or will be, read so often that its repeats are worth visibly less than new data."""
    told = []
    for name, passes, whole in zip(*(found.get("domains", {}).get(column, []) for column in ("domain", "passes", "passes_planned")), strict=True):  # fmt: skip
        if passes is None or max(passes, whole) <= WORTHWHILE_EPOCHS * (1 + 1e-9):
            continue
        now = f"has been read {passes:.1f} times" + (f" of {whole:.1f} planned" if whole > passes else "")
        told.append(f"{name} {now}: beyond {WORTHWHILE_EPOCHS:g}, repeats are worth visibly less than new data (arXiv 2305.16264).")  # fmt: skip
    return told
