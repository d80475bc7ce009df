"""What a run made: files and folders registered by name with a checksum, resolved by typed references."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lablib.runs import documents
from lablib.specs import LabError, Ref, write_atomic

REGISTER = "artefacts.json"


@dataclass(frozen=True)
class Artefact:
    """A registered result; `path` is relative to the run folder, `sha256` covers names and contents."""

    name: str
    kind: str
    path: str
    sha256: str
    bytes: int


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def fingerprint(path: Path) -> tuple[str, int]:
    """(SHA-256, bytes) of a file, or of a folder's relative names and contents. Raises `LabError` if it is absent."""
    if not path.exists():
        raise LabError(f"There is no {path}; the file or folder was moved or never written")
    total, size = hashlib.sha256(), 0
    for file in _files(path):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(path)}\0{content}\n".encode())
        size += file.stat().st_size
    return total.hexdigest(), size


def load(run: Path) -> dict[str, Artefact]:
    """The register of a run folder; empty before anything was registered. Raises `LabError` for a damaged one."""
    text = documents.text(run / REGISTER)
    return {} if text is None else documents.parsed(run / REGISTER, text, _parse)


def _parse(text: str) -> dict[str, Artefact]:
    return {row["name"]: Artefact(**row) for row in json.loads(text)}


def register(run: Path, name: str, path: Path, kind: str) -> Artefact:
    """Add or replace one artefact. Raises `LabError` for a path outside the run folder."""
    if not path.resolve().is_relative_to(run.resolve()):
        raise LabError(f"artefact {name}: {path} lies outside the run folder {run}; write it inside")
    sha256, size = fingerprint(path)
    made = Artefact(name, kind, str(path.resolve().relative_to(run.resolve())), sha256, size)
    everything = {**load(run), name: made}
    write_atomic(run / REGISTER, json.dumps([asdict(item) for item in everything.values()], indent=1))
    return made


def resolve(ref: Ref, root: Path) -> tuple[Path, Artefact]:
    """The path that a reference means below the runs folder `root`, with its checksum verified.

    Raises `LabError` where the run or artefact is missing, or its content is not what was registered.
    """
    run = root / ref.run
    if not run.is_dir():
        raise LabError(f"{ref}: there is no run {ref.run} in {root}; copy it there or submit it again")
    made = load(run).get(ref.artefact)
    if made is None:
        raise LabError(
            f"{ref}: run {ref.run} has made no {ref.artefact!r} (it has {sorted(load(run)) or 'nothing yet'})"
        )
    if fingerprint(run / made.path)[0] != made.sha256:
        raise LabError(f"{ref}: {run / made.path} has changed since it was registered; make it again")
    return run / made.path, made
