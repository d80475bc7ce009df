"""What the models wrote, exactly as they wrote it."""

from __future__ import annotations

from typing import Any

from lablib.report.markup import Markup, folded, join, tag
from lablib.report.record import Record
from lablib.report.section import Section

LONGEST = 1200
"""Characters of one text; what is cut says so."""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more characters)"


def _verdict(sample: dict[str, Any]) -> str:
    if sample["score"] is None:
        return ""
    told = "right" if sample["score"] >= 1 else f"score {sample['score']:g}"
    return f" · {told}, expected {sample['right']!r}" if sample["right"] is not None else f" · {told}"


def _sample(sample: dict[str, Any]) -> Markup:
    head = tag("h4", f"{sample['model']} · {sample['task']}{_verdict(sample)}")
    prompt = tag("span", _cut(sample["prompt"]), class_="prompt")
    return tag("article", head, tag("pre", prompt, " ", tag("mark", _cut(sample["text"]))))


def samples(record: Record) -> Section:
    """Prompt in grey, the model's text marked; chosen by position, not by quality."""
    found = [sample for run in record["runs"] for sample in run["samples"]]
    if not found:
        return Section("samples", "Samples", tag("p", "No samples were kept."))
    words = tag(
        "p", "The first items of each model and task, not picked. The prompt is plain, the model's text marked."
    )
    models = dict.fromkeys(sample["model"] for sample in found)
    groups = [folded(name, *(_sample(sample) for sample in found if sample["model"] == name)) for name in models]
    return Section("samples", "Samples", join([words, *groups]))
