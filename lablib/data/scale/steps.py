"""Steps of the funnel on a corpus in parts: what a step decides of each document alone, it decides part by part.

Near-duplicates need three rounds: signatures of each part, one gathering that decides, and the removal from each part.
So do edits that look at the whole corpus first (`lablib.data.scale.edits`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lablib.data import cache, corpus, funnel
from lablib.data.contamination import Decontamination
from lablib.data.contamination import Report as Contamination
from lablib.data.corpus import Corpus
from lablib.data.dedup import NearDuplicates, sketches, survivors
from lablib.data.documents import Report, silent
from lablib.data.editing import Edit, every
from lablib.data.joining import Joining
from lablib.data.scale import corpora, edits
from lablib.data.scale.team import Job, Team
from lablib.specs import digest, write_atomic
from lablib.specs.dedup import Dedup

Step = funnel.Step | Edit | Joining


@dataclass(frozen=True)
class _Decided:
    """A step whose verdicts are known."""

    step: funnel.Step
    gone: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.step.name

    def key(self) -> str:
        return self.step.key()

    def decide(self, before: Corpus, report: Report = silent) -> Mapping[str, str]:
        return self.gone


def refine(before: Corpus, step: Step, team: Team, report: Report = silent) -> Corpus:
    """The corpus that is left after a step, made in as many parts as the one before has."""
    key = digest([corpus.VERSION, before.identity, step.name, step.key()])
    if cache.has("corpora", key):
        return Corpus(cache.folder("corpora", key))
    parts = [part.folder for part in before.parts]
    if len(parts) == 1:
        alone = (_whole, (parts, 0, step)) if isinstance(step, Joining) else (_applied, (before.folder, step))
        return Corpus(team.one(Job("corpora", key, *alone), report))
    # Two parts without documents differ in their counts.
    named = [digest([key, n, Corpus(part).facts]) for n, part in enumerate(parts)]
    if isinstance(step, NearDuplicates):
        verdicts = _near(before, step, key, team, report)
        jobs = [Job("parts", name, _removed, (part, step, verdicts)) for name, part in zip(named, parts, strict=True)]
    elif isinstance(step, Edit):
        jobs = edits.jobs(before, step, key, named, team, report)
    elif isinstance(step, Joining):
        named = [digest([key, *named, n]) for n in range(len(parts))]
        jobs = [Job("parts", name, _whole, (parts, n, step)) for n, name in enumerate(named)]
    else:
        jobs = [Job("parts", name, _applied, (part, step)) for name, part in zip(named, parts, strict=True)]
    return Corpus(corpora.join(team.each(jobs, report), key, team))


def contamination(before: Corpus, step: Decontamination) -> Contamination:
    """What a decontamination found, over all parts."""
    return Contamination.joined([step.report(part) for part in before.parts])


def _applied(folder: Path, report: Report, part: Path, step: funnel.Step | Edit) -> None:
    funnel.apply(Corpus(part), step, folder, report)


def _whole(folder: Path, report: Report, parts: list[Path], number: int, step: Joining) -> None:
    step.apply([Corpus(part) for part in parts], number, folder, report)


def _removed(folder: Path, report: Report, part: Path, step: funnel.Step, verdicts: Path) -> None:
    """A part without what the gathering decided; only its own verdicts are held."""
    before = Corpus(part)
    here = {row.tobytes().hex() for domain in before.domains for row in before.index(domain)["sha256"]}
    with (verdicts / "gone.jsonl").open(encoding="utf-8") as file:
        gone = {name: reason for name, reason in map(json.loads, file) if name in here}
    funnel.apply(before, _Decided(step, gone), folder, report)


def _near(before: Corpus, step: NearDuplicates, key: str, team: Team, report: Report) -> Path:
    """The folder of ``gone.jsonl``: (SHA-256, reason) of each document that goes."""
    step.check(before)
    names = before.domains
    jobs = [
        Job("signatures", digest([step.key(), names, part.identity]), _signed, (part.folder, step.spec, names))
        for part in before.parts
    ]
    return team.one(Job("verdicts", key, _gathered, (team.each(jobs, report), step.spec, names)), report)


def _signed(folder: Path, report: Report, part: Path, spec: Dedup, names: list[str]) -> None:
    before = Corpus(part)
    total = sum(before.bytes(domain) for domain in before.domains)
    sketches.collect(every(before), spec, folder, 1, lambda done: report(done, total), names).save(folder)


def _gathered(folder: Path, report: Report, signed: list[Path], spec: Dedup, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        known = sketches.Sketches.joined(signed, spec.banding[0], names, Path(temporary))
        gone = survivors.verdicts(known, survivors.fallen(known, spec))
        write_atomic(folder / "gone.jsonl", "".join(json.dumps(row) + "\n" for row in sorted(gone.items())))
