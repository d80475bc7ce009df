"""Where the lab keeps what it downloads, measures and runs; each place can be moved by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from lablib.specs.errors import LabError


def home() -> Path:
    """The lab's cache folder: ``$LAB_HOME``, else ``~/.cache/llm-lab``."""
    return Path(os.environ.get("LAB_HOME") or Path.home() / ".cache" / "llm-lab")


def assets() -> Path:
    """Downloaded packages and converted models, below `home`; safe to delete, it is filled again."""
    return home() / "assets"


def runs_root() -> Path:
    """The folder of run directories: ``$LAB_RUNS``, else ``./runs``."""
    return Path(os.environ.get("LAB_RUNS") or "runs").absolute()


def matched(text: str) -> list[Path]:
    """Files of a path, sorted: itself, all below a folder, or those that a pattern fits (``crawl/**/*.warc.gz``); none where
    there is nothing. What exists under the very name is no pattern."""
    root, pattern = rooted(text)
    found = [root] if root.is_file() else root.glob(pattern or "**/*")
    return sorted(path for path in found if path.is_file())


def rooted(text: str) -> tuple[Path, str]:
    """A path, and the pattern below it: ``crawl/*/a.gz`` → ``crawl`` and ``*/a.gz``; an empty one where there is none. Raises
    `LabError` for a ``**`` that is not alone between slashes, or that ends it."""
    path = Path(text).expanduser()
    at = next((n for n, part in enumerate(path.parts) if set(part) & set("*?[")), None)
    if at is None or path.exists():
        return path, ""
    if wrong := [part for part in path.parts if "**" in part and part != "**"]:
        raise LabError(f"{text}: {wrong[0]} is no pattern; write **/ for any folders, and * inside a name")
    if path.parts[-1] == "**":
        raise LabError(f"{text}: ** is any folders and names no file; write {text}/*")
    return Path(*path.parts[:at]), str(Path(*path.parts[at:]))


def profile_folders() -> tuple[Path, ...]:
    """Where cluster profiles are looked for, first one first: ``$LAB_PROFILES``, the user's, the repository's."""
    given = os.environ.get("LAB_PROFILES")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "llm-lab" / "profiles"
    packaged = Path(__file__).resolve().parents[2] / "cluster" / "profiles"
    return (*([Path(given)] if given else []), config, packaged)
