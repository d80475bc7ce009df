"""The code that a run imports: a copy taken at submission, named by its content, checked when a job starts.

Editing a module while a job waits in the queue, or between two attempts, must not change what runs. Copies of equal code
are one; a copy appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lablib.runs import orders
from lablib.specs import LabError

SOURCE = Path(__file__).resolve().parent.parent
PACKAGES = ("lablib", "cluster")
"""What jobs import; they never import the faces above."""


def take(root: Path, source: Path = SOURCE) -> str:
    """Copy the code to ``root/.code/<hash>`` unless it is there; gives the hash."""
    name = fingerprint(source)
    target = folder(root, name)
    if target.is_dir() and fingerprint(target) == name:
        return name
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=target.parent, prefix=".half-"))
    half.chmod(0o755)
    try:
        for relative in files(source):
            (half / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, half / relative)
    except OSError:  # a full disk
        shutil.rmtree(half, ignore_errors=True)
        raise
    name = fingerprint(half)  # an editor may have saved while files were copied: the copy is what runs
    target = folder(root, name)
    if target.is_dir() and fingerprint(target) != name:
        target.rename(target.with_name(f".changed-{name}-{time.time_ns()}"))  # kept: a job may be importing from it
    try:
        half.rename(target)
    except OSError:  # another submission was faster
        shutil.rmtree(half)
    return name


def folder(root: Path, name: str) -> Path:
    """Where the code of that hash lies."""
    return root / orders.CODE / name


def fingerprint(source: Path) -> str:
    """SHA-256 of every file's path and content, sixteen digits of it."""
    found = hashlib.sha256()
    for relative in files(source):
        content = (source / relative).read_bytes()
        found.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:16]


def check(run: Path, wanted: str) -> None:
    """Raises `LabError` where this process has imported other code than the run was submitted with, or it was changed."""
    if not wanted:
        return
    if folder(run.parent, wanted).resolve() != SOURCE:
        raise LabError(f"this job imports {SOURCE}, not the code that it was submitted with; does the profile's setup change PYTHONPATH?")  # fmt: skip
    if fingerprint(SOURCE) != wanted:
        raise LabError(f"the code in {SOURCE} was changed after it was copied; `lab resume` takes a fresh copy")


def files(source: Path) -> Iterator[Path]:
    """What a copy has, relative to `source`, in a fixed order."""
    for package in PACKAGES:
        for path in sorted((source / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                yield path.relative_to(source)
