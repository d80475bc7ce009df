"""As much of a capped data set as it may give, read by several workers: the rows of one pass that stops at the cap.

How far the cap reaches is known once the files before it are read. So the first is read alone, then as many at once as the
rest of the cap should take by what files have held so far, and again where they held less. Of a file across the cap the
beginning is read once more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

from lablib.data import corpus
from lablib.data.documents import Report, Source
from lablib.data.scale.team import Job, Team
from lablib.data.sources.hub import Beginning, Hub, Shards
from lablib.specs import write_atomic

READ = "beginning.json"
"""In the folder of a part: [bytes of text read, whether it goes on]."""


def needed(
    parts: Sequence[tuple[Source, ...]], jobs: Sequence[Job], named: Callable[..., str], team: Team, report: Report
) -> list[Job]:
    """The jobs that read the parts, in order, without parts behind a cap; those of a capped source are made, but for one that
    stands across the cap. `named` makes keys of products."""
    kept: list[Job] = []
    for source, group in groupby(enumerate(parts), lambda one: _capped(one[1])):
        if source is None:
            kept += [jobs[n] for n, _ in group]
        else:
            shards = {n: cast(Shards, part[0]) for n, part in group}
            kept += _until(source.max_bytes or 0, shards, named, team, report)
    return kept


def _capped(part: tuple[Source, ...]) -> Hub | None:
    """The data set that a part is of, where it has a cap."""
    source = part[0]
    return source.of if isinstance(source, Shards) and source.of.max_bytes is not None else None


def _until(most: int, shards: dict[int, Shards], named: Callable[..., str], team: Team, report: Report) -> list[Job]:
    kept: list[Job] = []
    left, numbers = most, list(shards)
    while numbers[len(kept) :]:
        jobs = [_job(n, shards[n], left, named) for n in numbers[len(kept) :][: _wave(len(kept), most - left, left)]]
        before = len(kept)
        for job, folder in zip(jobs, team.each(jobs, _behind(report, before)), strict=True):
            size, ended = json.loads((folder / READ).read_text(encoding="utf-8"))
            n = numbers[len(kept)]
            kept.append(job if size <= left else _job(n, shards[n], left, named))
            if ended or size > left:
                return kept
            left -= size
    return kept


def _wave(files: int, held: int, left: int) -> int:
    """How many files should take what is left, where so many `held` so much."""
    return max(1, math.ceil(left * files / held)) if held else files + 1


def _behind(report: Report, before: int) -> Report:
    return lambda done, total: report(before + done, before + total)


def _job(number: int, shards: Shards, most: int, named: Callable[..., str]) -> Job:
    return Job("parts", named("read", number, most), _read, (shards, most))


def _read(folder: Path, report: Report, shards: Shards, most: int) -> None:
    beginning = Beginning(shards, most)
    corpus.build((beginning,), folder, report, part=True)
    write_atomic(folder / READ, json.dumps([beginning.bytes, beginning.ended]))
