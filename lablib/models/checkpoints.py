"""A finished run's checkpoints, found by its folder and verified by their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lablib.data import shards
from lablib.data.tokenizer import tokenizer_hash
from lablib.specs import LabError

MARKER = "checkpoint.json"
"""Beside a checkpoint's shards: step, data position, science hash, and every file's size and SHA-256."""


def checkpoint(run: Path, step: int, science: str) -> Path:
    """The folder of the whole checkpoint of `step` in the run folder `run`. Raises `LabError` where it is missing or torn, or of
    another experiment than `science`."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    if not (folder / MARKER).is_file():
        there = [int(path.name[5:]) for path in sorted((run / "checkpoints").glob("step-*"))]
        raise LabError(f"step={step}: {run.name} keeps checkpoints {there or 'no more'}; choose one of them, or set permanent_every in the recipe that writes them")  # fmt: skip
    marker = read_marker(folder)
    if marker["science"] != science:
        raise LabError(f"{folder} was written by another recipe (science hash {marker['science']}, wanted {science}); refer to the run anew")  # fmt: skip
    for name, (size, sha256) in marker["files"].items():
        file = folder / name
        if not file.is_file() or fingerprint(file) != (size, sha256):
            raise LabError(f"{file} is not as it was written; choose another checkpoint")
    return folder


def read_marker(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    found: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    return found


def fingerprint(file: Path) -> tuple[int, str]:
    """(Size, SHA-256) of a file."""
    with file.open("rb") as stream:
        return file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def vocabulary(folder: Path) -> str | None:
    """Hash of the tokenizer that the run of a checkpoint's `folder` reads; None where its data is gone."""
    run = folder.parent.parent
    data = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["data"]
    prepared = run.parent / data["run"] if isinstance(data, dict) else run
    if (prepared / "tokenizer").is_dir():
        return tokenizer_hash(prepared / "tokenizer")
    return shards.manifest(prepared / "data")["tokenizer"].get("hash") if (prepared / "data").is_dir() else None
