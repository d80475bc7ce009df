"""The text that a tokenizer learns from, drawn from each part of a corpus by hash."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lablib.data import selection
from lablib.data.corpus import Corpus
from lablib.data.documents import Report, silent
from lablib.data.scale.team import Job, Team
from lablib.specs import digest


def draw(built: Corpus, sizes: Mapping[str, float], heldout: float, key: str, team: Team, report: Report = silent) -> list[Path]:  # fmt: skip
    """Folders with each part's share of a sample that has at most `sizes` bytes of each domain; `key` is the tokenizer's."""
    bounds = {domain: selection.bound(built, domain, size) for domain, size in sizes.items()}
    jobs = [
        Job("samples", digest([key, part.identity]), _drawn, (part.folder, bounds, heldout)) for part in built.parts
    ]
    return team.each(jobs, report)


def _drawn(folder: Path, report: Report, part: Path, bounds: Mapping[str, str | None], heldout: float) -> None:
    built = Corpus(part)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for domain in sorted(set(bounds).intersection(built.domains)):
            for row in selection.training(built, domain, bounds[domain], heldout, report).items():
                file.write(json.dumps([domain, *row]) + "\n")


def texts(drawn: Sequence[Path]) -> Iterator[str]:
    """The sample, domain by domain in order of the documents' hashes: the same for any order of reading."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for folder in drawn:
        with (folder / "texts.jsonl").open(encoding="utf-8") as file:
            for domain, sha256, text in map(json.loads, file):
                found[domain][sha256] = text
    for domain in sorted(found):
        yield from (found[domain][sha256] for sha256 in sorted(found[domain]))
