"""Where the lab keeps what it downloads, measures and runs; each place can be moved by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The lab's cache folder: ``$LAB_HOME``, else ``~/.cache/llm-lab``."""
    return Path(os.environ.get("LAB_HOME") or Path.home() / ".cache" / "llm-lab")


def assets() -> Path:
    """Downloaded packages and converted models, below `home`; safe to delete, it is filled again."""
    return home() / "assets"


def runs_root() -> Path:
    """The folder of run directories: ``$LAB_RUNS``, else ``./runs``."""
    return Path(os.environ.get("LAB_RUNS") or "runs").absolute()


def profile_folders() -> tuple[Path, ...]:
    """Where cluster profiles are looked for, first one first: ``$LAB_PROFILES``, the user's, the repository's."""
    given = os.environ.get("LAB_PROFILES")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "llm-lab" / "profiles"
    packaged = Path(__file__).resolve().parents[2] / "cluster" / "profiles"
    return (*([Path(given)] if given else []), config, packaged)
