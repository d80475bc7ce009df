"""JSON documents of a run folder, read so that a damaged one is told by its file's name and nothing else breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lablib.specs import LabError

T = TypeVar("T")


def text(file: Path) -> str | None:
    """What is in a file; None where there is none. Raises `LabError` for what is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise damaged(file, error) from None


def table(file: Path, *needed: str) -> dict[str, Any] | None:
    """A JSON object with at least the fields `needed`; None where there is no file. Raises `LabError` for anything else."""
    found = text(file)
    if found is None:
        return None
    made = parsed(file, found, json.loads)
    if not isinstance(made, dict):
        raise damaged(file, f"it holds {made!r:.40}, not an object")
    if missing := [name for name in needed if made.get(name) is None]:
        raise damaged(file, f"it has no {', '.join(missing)}")
    return made


def parsed(file: Path, content: Any, make: Callable[[Any], T]) -> T:
    """``make(content)``, whose every complaint becomes a `LabError` that names the file."""
    try:
        return make(content)
    except (LabError, ValueError, TypeError, LookupError) as error:
        raise damaged(file, error) from None


def damaged(file: Path, why: object) -> LabError:
    """The error of a file that says something else than it should."""
    return LabError(f"{file} is damaged ({why}); restore the file, or remove the run's folder")
