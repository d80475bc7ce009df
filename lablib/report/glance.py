"""The report in one row of numbers, before anything is explained."""

from __future__ import annotations

from typing import Any

from lablib.explorers import Headline, show
from lablib.explorers.planned import Span
from lablib.report.markup import Markup, join, tag
from lablib.report.record import Record
from lablib.report.spans import planned


def _total(record: Record, field: str) -> Span | None:
    """The sum of a planned quantity over stages; None unless every stage has one."""
    spans: list[Any] = [getattr(planned(run), field) for run in record["runs"]]
    if not spans or any(span is None for span in spans):
        return None
    return Span(*(sum(getattr(span, end) for span in spans) for end in ("low", "mid", "high")))


def _sum(record: Record, measured: str) -> float | None:
    values = [run["outcome"][measured] for run in record["runs"]]
    return None if any(value is None for value in values) else sum(values)


def _loss(record: Record) -> Headline | None:
    for run in record["runs"]:
        if run["stage"] == "pretrain" and run["outcome"]["loss"] is not None:
            span, loss = planned(run).loss, run["outcome"]["loss"]
            return Headline("Pretraining loss", show.loss(loss), f"forecast {show.span(span, 'loss')}")
    return None


def _verdicts(record: Record) -> Headline | None:
    told = [row["verdict"] for run in record["runs"] if run["scores"] for row in run["scores"]["comparisons"]]
    if not told:
        return None
    plural = {"improvement": "improvements", "regression": "regressions", "no result": "no result"}
    counts = ", ".join(f"{told.count(word)} {word if told.count(word) == 1 else plural[word]}" for word in plural)
    return Headline("Comparisons", str(len(told)), counts)


def headlines(record: Record) -> list[Headline]:
    """Stages, time, money, loss and verdicts; what is unknown is left out."""
    runs = record["runs"]
    done = sum(run["state"] == "completed" for run in runs)
    seconds, dollars = _sum(record, "seconds"), _sum(record, "dollars")
    found = [
        Headline("Stages completed", f"{done} of {len(runs)}", "", "plain" if done == len(runs) else "bad"),
        Headline("Work", show.seconds(seconds), f"planned {show.span(_total(record, 'seconds'), 'seconds')}"),
        Headline("Money", show.dollars(dollars), f"planned {show.span(_total(record, 'dollars'), 'dollars')}"),
        _loss(record),
        _verdicts(record),
    ]
    return [headline for headline in found if headline is not None]


def glance(record: Record) -> Markup:
    """The headlines as a definition list."""
    cards = (
        tag(
            "div",
            tag("dt", item.label),
            tag("dd", item.value, class_=f"value {item.tone}"),
            tag("dd", item.note, class_="note"),
        )
        for item in headlines(record)
    )
    return tag("dl", join(cards), class_="lab-headlines")
