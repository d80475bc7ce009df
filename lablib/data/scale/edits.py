"""An edit of a corpus in parts: rounds of looking at all of them, the edit of each, and the choice between equal texts.

Only what rounds gather and that choice are one worker's; what is written are the bytes of `lablib.data.editing.plan` on the
whole corpus, whatever the cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lablib.data import editing, funnel
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, held
from lablib.data.editing import Edit, Edited, Plan
from lablib.data.scale import corpora
from lablib.data.scale.team import Job, Team
from lablib.specs import digest

SAME, CHANGED, SHORT = range(3)
"""What an edit makes of a document: nothing, another text, or one too short to stay."""
Hashes = NDArray[np.uint8]


@dataclass(frozen=True)
class Informed:
    """An edit that has looked at all parts, for one of them."""

    step: Edit
    seen: tuple[Path, ...]
    known: tuple[Path, ...]

    def edit(self) -> Callable[[Document], Edited]:
        """Of each document of the part."""
        return self.step.informed(self.seen, self.known)


def jobs(before: Corpus, step: Edit, key: str, names: Sequence[str], team: Team, report: Report) -> list[Job]:
    """The parts that are left after an edit, by the `names` of their products; whatever they rest on is made first."""
    parts = [part.folder for part in before.parts]
    informed = _informed(before, step, key, team, report)
    made = [
        Job("edits", digest(["edits", name]), _edited, (part, edit))
        for name, part, edit in zip(names, parts, informed, strict=True)
    ]
    rows = team.each(made, report)
    equal = team.one(Job("equal", digest(["equal", *names]), _settled, (rows,)), held(report))
    return [
        Job("parts", name, _written, (part, edit, told, equal / f"{number}.npy"))
        for number, (name, part, edit, told) in enumerate(zip(names, parts, informed, rows, strict=True))
    ]


def _informed(before: Corpus, step: Edit, key: str, team: Team, report: Report) -> list[Informed]:
    size = sum(before.bytes(domain) for domain in before.domains)
    seen: list[tuple[Path, ...]] = [() for _ in before.parts]
    known: tuple[Path, ...] = ()
    for number in range(len(step.looks)):
        looks = [
            Job("looks", digest([key, number, part.identity]), _seen, (part.folder, step, number, size, known))
            for part in before.parts
        ]
        folders = team.each(looks, report)
        seen = [(*earlier, folder) for earlier, folder in zip(seen, folders, strict=True)]
        known = (*known, team.one(Job("known", digest([key, number]), _gathered, (step, number, folders)), report))
    return [Informed(step, one, known) for one in seen]


def _seen(
    folder: Path, report: Report, part: Path, step: Edit, number: int, size: float, known: Sequence[Path]
) -> None:
    step.looks[number].see(Corpus(part), size, known, folder, report)


def _gathered(folder: Path, report: Report, step: Edit, number: int, seen: Sequence[Path]) -> None:
    step.looks[number].gather(seen, folder, report)


def _edited(folder: Path, report: Report, part: Path, informed: Informed) -> None:
    """For each document of a part the SHA-256 of its text before and after, and what the edit makes of it."""
    edit, fates = informed.edit(), bytearray()
    before, after = bytearray(), bytearray()
    for document in editing.every(Corpus(part), report):
        made, old = edit(document), bytes.fromhex(document.sha256)
        fate = SAME if made.text == document.text else SHORT if editing.too_short(made) else CHANGED
        before += old
        after += hashlib.sha256(made.text.encode()).digest() if fate == CHANGED else old
        fates.append(fate)
    for name, rows in (("before", before), ("after", after)):
        np.save(folder / f"{name}.npy", np.frombuffer(rows, np.uint8).reshape(-1, 32))
    np.save(folder / "fates.npy", np.frombuffer(fates, np.uint8))


def _settled(folder: Path, report: Report, told: Sequence[Path]) -> None:
    """For each part a file (documents, 2, 32) of those that go for an equal one: the SHA-256, before the edit, of both.

    One that has the text unedited stays; without one, that of the least SHA-256 before the edit.
    """
    fates = [np.load(rows / "fates.npy") for rows in told]
    firsts = [np.load(rows / "after.npy", mmap_mode="r")[:, 0] for rows in told]
    buckets = max(1, -(-sum(map(len, fates)) // corpora.BUCKET))
    found: list[list[Hashes]] = [[np.zeros((0, 2, 32), np.uint8)] for _ in told]
    for bucket in range(buckets):
        wanted = [
            np.flatnonzero((fate != SHORT) & (first.astype(int) * buckets // 256 == bucket))
            for fate, first in zip(fates, firsts, strict=True)
        ]
        for number, twins in _twins(told, fates, wanted):
            found[number].append(twins)
        report(bucket + 1, buckets)
    for number, rows in enumerate(found):
        np.save(folder / f"{number}.npy", np.concatenate(rows))


def _twins(told: Sequence[Path], fates: Sequence[Hashes], wanted: Sequence[Any]) -> Iterator[tuple[int, Hashes]]:
    """(part, documents that go with the ones they go for), of some documents of each part."""
    old, new = (
        np.concatenate(
            [np.load(rows / f"{name}.npy", mmap_mode="r")[at] for rows, at in zip(told, wanted, strict=True)]
        )
        for name in ("before", "after")
    )
    fate = np.concatenate([one[at] for one, at in zip(fates, wanted, strict=True)])
    owner = np.repeat(np.arange(len(told)), [len(at) for at in wanted])
    names, texts = (np.ascontiguousarray(rows).view("S32").ravel() for rows in (old, new))
    order = np.lexsort((names, fate, texts))
    starts = np.flatnonzero(np.concatenate([[True], texts[order][1:] != texts[order][:-1]])) if len(order) else order
    stays = order[np.repeat(starts, np.diff(np.append(starts, len(order))))]
    goes = (order != stays) & (fate[order] == CHANGED)
    pairs, owners = np.stack([old[order[goes]], old[stays[goes]]], axis=1), owner[order[goes]]
    return ((number, pairs[owners == number]) for number in np.unique(owners).tolist())


def _written(folder: Path, report: Report, part: Path, informed: Informed, told: Path, equal: Path) -> None:
    """A part after its edit."""
    names = [row.tobytes().hex() for row in np.load(told / "before.npy")]
    fates = dict(zip(names, np.load(told / "fates.npy").tolist(), strict=True))
    gone = {name: editing.TOO_SHORT for name, fate in fates.items() if fate == SHORT}
    gone |= {one.tobytes().hex(): editing.equal_to(twin.tobytes().hex()) for one, twin in np.load(equal)}
    plan = Plan(informed.edit(), frozenset(name for name, fate in fates.items() if fate != SAME), gone)
    funnel.carry_out(plan, Corpus(part), informed.step, folder, report)
