"""A corpus made in parts: sources are cut, each part is read, what other parts have already goes, and the parts are joined.

The cut depends on the sources alone. A joined corpus has the same hash, counts, samples and order of documents as one that
was read in one go, whatever the cut.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lablib.data import corpus, funnel
from lablib.data.corpus import Corpus
from lablib.data.documents import Report, Source, held, silent
from lablib.data.editing import every
from lablib.data.samples import Samples
from lablib.data.scale import beginnings, stretches
from lablib.data.scale.team import Job, Team
from lablib.data.sources.files import Files
from lablib.specs import LabError, digest, write_atomic

BUCKET = 20_000_000
"""Documents that are compared at a time for exact duplicates: 40 bytes of memory each."""


@runtime_checkable
class Divisible(Protocol):
    """A source that can be cut; the documents of its parts one after the other are its own."""

    def parts(self, size: float) -> Sequence[Source]:
        """Sources of about `size` bytes each, in order, that depend on nothing but itself and the size."""


def cut(sources: Sequence[Source], size: float) -> list[tuple[Source, ...]]:
    """Sources in parts of about `size` bytes, in order: what is `Divisible` is cut, other sources stay whole."""
    parts: list[tuple[Source, ...]] = []
    room = 0.0
    for source in sources:
        if isinstance(source, Divisible):
            parts += [(piece,) for piece in source.parts(size)]
            room = 0.0
        elif room > 0:
            parts[-1] = (*parts[-1], source)
            room -= source.download_bytes
        else:
            parts.append((source,))
            room = size - source.download_bytes
    return parts


def key(sources: Sequence[Source], limit: int | None, team: Team, size: float, report: Report = silent) -> str:
    """`corpus.key`, for which the team reads a folder's files only where one has changed since they were last read."""
    prints = [_fingerprint(source, team, size, held(report)) for source in sources]
    return digest([corpus.VERSION, limit, *prints])


def _fingerprint(source: Source, team: Team, size: float, report: Report) -> str:
    if not isinstance(source, Files):
        return source.fingerprint()
    named = source.parts(size, inside=False)
    folders = team.each([Job("sums", part.stamp(), _sum, (part,)) for part in named], report)
    return source.fingerprint([row for folder in folders for row in json.loads((folder / "sums.json").read_text())])


def _sum(folder: Path, report: Report, part: Files) -> None:
    write_atomic(folder / "sums.json", json.dumps(part.sums(report)))


def read(sources: Sequence[Source], key: str, team: Team, size: float, report: Report) -> Path:
    """The folder of the corpus named `key`, read in parts. Raises `LabError` where nothing can be read."""
    whole = Job("corpora", key, _joined)
    if whole.there:
        return whole.folder
    parts = cut(sources, size)
    named = partial(_key, key, size, [len(part) for part in parts])
    parts = stretches.numbered(parts, named, team, report)
    alone = len(parts) == 1
    jobs = [Job("parts", named("read", n), _read, (part, not alone)) for n, part in enumerate(parts)]
    jobs = beginnings.needed(parts, jobs, named, team, report)
    folders = team.each(jobs, report)
    if not alone:
        seen = team.one(Job("parts", named("seen"), _seen, (folders,)), held(report, 1))
        jobs = [Job("parts", named("once", n), _once, (seen / f"{n}.npy", part)) for n, part in enumerate(folders)]
        folders = team.each(jobs, held(report, 1))
    where = ", ".join(dict.fromkeys(map(str, sources)))
    return team.one(Job("corpora", key, _joined, (folders, where)), held(report, 1))


def _key(*facts: object) -> str:
    return digest([corpus.VERSION, *facts])


def _read(folder: Path, report: Report, sources: tuple[Source, ...], part: bool) -> None:
    corpus.build(sources, folder, report, part)


def _seen(folder: Path, report: Report, parts: list[Path]) -> None:
    """For each part a file of SHA-256 (documents, 32) that an earlier part has."""
    marks = [_marks(Corpus(part)) for part in parts]
    total = sum(map(len, marks))
    buckets = max(1, -(-total // BUCKET))
    found: list[list[Any]] = [[] for _ in parts]
    for bucket in range(buckets):
        chosen = [part[part[:, 0].astype(int) * buckets // 256 == bucket] for part in marks]
        ends = np.cumsum([len(part) for part in chosen])
        joined = np.concatenate(chosen)
        flat = np.ascontiguousarray(joined).view("S32").ravel()
        order = np.argsort(flat, kind="stable")
        again = order[1:][flat[order[1:]] == flat[order[:-1]]]
        for place in np.sort(again):
            found[int(np.searchsorted(ends, place, side="right"))].append(joined[place])
        report(bucket + 1, buckets)
    for number, rows in enumerate(found):
        np.save(folder / f"{number}.npy", np.array(rows, np.uint8).reshape(-1, 32))


def _marks(part: Corpus) -> Any:
    return np.concatenate([np.zeros((0, 32), np.uint8), *(part.index(domain)["sha256"] for domain in part.domains)])


def _once(folder: Path, report: Report, seen: Path, before: Path) -> None:
    """A part without the documents that earlier ones have, which are counted as duplicates."""
    gone = {row.tobytes().hex() for row in np.load(seen)}
    if not gone:
        linked(before, folder)
        return
    part = Corpus(before)
    facts, again, writer = part.facts["domains"], Counter[str](), corpus.Writer(folder)
    with writer:
        for document in every(part, report):
            if document.sha256 in gone:
                again[document.domain] += 1
            else:
                writer.add(document)
    writer.describe({name: {**one, "duplicates": one["duplicates"] + again[name]} for name, one in facts.items()})
    if (before / "dropped.jsonl").is_file():
        linked(before / "dropped.jsonl", folder / "dropped.jsonl")


def join(parts: Sequence[Path], kind_key: str, team: Team) -> Path:
    """The folder of the corpus that consists of these parts."""
    return team.one(Job("corpora", kind_key, _joined, (list(parts), "")))


def _joined(folder: Path, report: Report, parts: list[Path], read_from: str) -> None:
    """`read_from` names the sources that the parts were just read from; empty for parts that a step has made."""
    if read_from:
        _check_readable(parts, read_from)
    if len(parts) == 1:
        linked(parts[0], folder)
        return
    for number, part in enumerate(parts):
        report(number, len(parts))
        linked(part, folder / f"part-{number:05}")
    describe(folder, parts)


def describe(folder: Path, parts: Sequence[Path]) -> None:
    """Write what the corpora of these folders hold together: ``corpus.json`` and the samples."""
    every_fact = [Corpus(part).facts for part in parts]
    names = sorted({name for facts in every_fact for name in facts["domains"]})
    domains = {
        name: _domain([facts["domains"][name] for facts in every_fact if name in facts["domains"]]) for name in names
    }
    hashes = {name: _bytes_of(parts, name) for name in names}
    facts = {
        "hash": corpus.hash_of({name: found for name, found in hashes.items() if found}),
        "rows": f"{sum(int(one['rows'], 16) for one in every_fact) % 2**256:064x}",
        "domains": domains,
    }
    steps = [_row(rows) for rows in zip(*(one.get("funnel", []) for one in every_fact), strict=True)]
    write_atomic(folder / "corpus.json", json.dumps({**facts, **({"funnel": steps} if steps else {})}, indent=1, ensure_ascii=False))  # fmt: skip
    for name in ("dropped.jsonl", "changed.jsonl"):
        if any((part / name).is_file() for part in parts):
            _samples([part / name for part in parts]).save(folder / name)


def _bytes_of(parts: Sequence[Path], domain: str) -> bytes:
    return b"".join(Corpus(part).index(domain)["sha256"].tobytes() for part in parts)


def _domain(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One domain's counts over all parts that know of it."""
    made: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in found for name in one if name not in ("sources", "provenance")):
        values = [one[name] for one in found if name in one]
        made[name] = dict(sum(map(Counter, values), Counter())) if isinstance(values[0], dict) else sum(values)
    origins: Counter[tuple[str, str]] = Counter()
    known: Counter[str] = Counter()
    for one in found:
        origins.update({(row["source"], row["licence"]): row["docs"] for row in one["sources"]})
        told = one.get("provenance", {})
        depth = max(known["generation"], told.get("generation", 0))
        known.update({name: value for name, value in told.items() if name != "generation"})
        known["generation"] = depth
    made["sources"] = [{"source": s, "licence": t, "docs": n} for (s, t), n in sorted(origins.items())]
    known = Counter({name: value for name, value in known.items() if value})
    return {**made, "provenance": dict(known)} if known else made


def _row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A step's row of the funnel over all parts."""
    counts: dict[str, funnel.Count] = {}
    for row in rows:
        for name, one in row["domains"].items():
            counts.setdefault(name, funnel.Count()).plus(one)
    return {**rows[0], "domains": {name: vars(one) for name, one in sorted(counts.items())}}


def _samples(files: Sequence[Path]) -> Samples:
    made = Samples()
    for row in _lines(files):
        made.add(row["sha256"], row.get("reason", "").partition(" [")[0], row)
    return made


def _lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        if file.is_file():
            with file.open(encoding="utf-8") as stream:
                yield from map(json.loads, stream)


def _check_readable(parts: Sequence[Path], where: str) -> None:
    """As `lablib.data.corpus.build` does for sources that are read in one go."""
    counted = [one for part in parts for one in Corpus(part).facts["domains"].values()]
    if any(one["docs"] for one in counted):
        return
    samples = list(_lines([part / "dropped.jsonl" for part in parts]))[: corpus.SHOWN]
    if samples and not any(one["short"] for one in counted):
        raise corpus.unreadable(where, "; ".join(f"{row['source']}: {row['reason']}" for row in samples))
    raise LabError(corpus.NOTHING)


def linked(source: Path, target: Path) -> None:
    """The same files under another name, without a copy where the file system can."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)
    else:
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
