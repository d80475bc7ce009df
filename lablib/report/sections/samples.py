"""What the models wrote, exactly as they wrote it."""

from __future__ import annotations

from typing import Any

from lablib.report.markup import Markup, join, tag
from lablib.report.record import Record
from lablib.report.section import Section

LONGEST = 1200
"""Characters of one text; what is cut says so."""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more characters)"


def _sample(sample: dict[str, Any]) -> Markup:
    score = sample.get("score")
    verdict = "" if score is None else " · right" if score >= 1 else f" · score {score:g}"
    head = tag("h4", f"{sample['model']} · {sample['kind']}{verdict}")
    return tag(
        "article",
        head,
        tag("pre", tag("span", _cut(sample["prompt"]), class_="prompt"), "\n", tag("mark", _cut(sample["text"]))),
    )


def samples(record: Record) -> Section:
    """Prompt in grey, the model's text marked; chosen by position, not by quality."""
    found = [sample for run in record["runs"] for sample in run["samples"]]
    if not found:
        return Section("samples", "Samples", tag("p", "No samples were kept."))
    words = tag("p", "The first items of each evaluation, not picked. Prompt plain, the model's text marked.")
    return Section("samples", "Samples", join([words, *map(_sample, found)]))
