"""Stretches of large files: what a stretch must know of the rows before it, counted by the team ahead of the reading."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lablib.data.documents import Report, Source
from lablib.data.scale.team import Job, Team
from lablib.data.sources.files import Files, Piece
from lablib.data.sources.tables import TABLES
from lablib.specs import write_atomic

Part = tuple[Source, ...]


def numbered(parts: Sequence[Part], named: Callable[..., str], team: Team, report: Report) -> list[Part]:
    """The same parts, whose stretches know the number of their first row and which of their ids are taken.

    Every stretch is scanned, then one worker compares the ids file by file, in 32 bytes of memory for each id of a file.
    `named` makes keys of products; `report` hears only that the work goes on.
    """
    pieces = [piece for part in parts for piece in _pieces(part)]
    if not pieces:
        return list(parts)
    jobs = [Job("parts", named("scan", n), _scanned, (piece,)) for n, piece in enumerate(pieces)]
    scans = team.each(jobs, lambda done, total: report(0, 0))
    folder = team.one(Job("parts", named("before"), _before, (pieces, scans)))
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    told = iter([(row, folder / f"{n}.npy") for n, row in enumerate(rows)])
    return [tuple(_told(source, told) for source in part) for part in parts]


def _pieces(part: Part) -> list[Piece]:
    return [piece for source in part if isinstance(source, Files) for piece in source.only if piece.stretch is not None]


def _told(source: Source, told: Iterator[tuple[int, Path]]) -> Source:
    if not isinstance(source, Files):
        return source
    only = []
    for piece in source.only:
        if piece.stretch is not None:
            row, earlier = next(told)
            piece = Piece(piece.path, replace(piece.stretch, row=row, earlier=earlier))
        only.append(piece)
    return replace(source, only=tuple(only))


def _scanned(folder: Path, report: Report, piece: Piece) -> None:
    assert piece.stretch is not None
    found = TABLES[piece.path.suffix.lower()].scan(piece.path, piece.stretch)
    np.save(folder / "ids.npy", found.ids)
    write_atomic(folder / "rows.json", json.dumps(found.rows))


def _files(pieces: Sequence[Piece]) -> list[list[int]]:
    """The numbers of each file's pieces; a file that two sources have comes twice, and its rows begin again."""
    found: list[list[int]] = []
    for number, (_, stretch) in enumerate(pieces):
        if not (stretch and stretch.begin):
            found.append([])
        found[-1].append(number)
    return found


def _before(folder: Path, report: Report, pieces: list[Piece], scans: list[Path]) -> None:
    """``rows.json``: the rows before each piece in its file; ``<n>.npy``: those of its ids that an earlier piece has."""
    before: list[int] = []
    for numbers in _files(pieces):
        counts = [int((scans[n] / "rows.json").read_text(encoding="utf-8")) for n in numbers]
        before += [0, *np.cumsum(counts).tolist()][: len(numbers)]
        found = [np.load(scans[n] / "ids.npy") for n in numbers]
        ids = np.concatenate(found)
        owners = np.repeat(np.arange(len(found)), [len(one) for one in found])
        order = np.argsort(ids, kind="stable")
        again = order[1:][ids[order[1:]] == ids[order[:-1]]]
        for at, n in enumerate(numbers):
            np.save(folder / f"{n}.npy", ids[again[owners[again] == at]])
    write_atomic(folder / "rows.json", json.dumps(before))
