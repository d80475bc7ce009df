"""A run on a machine that ssh reaches, kept as a folder here: ``Run.open("ssh://user@login/path/of/run")``.

Only what people watch is copied: recipe, plan, metrics, events, heartbeats, logs; never checkpoints or weights. Each look
asks for what has changed since the last one, and has the far side look at its scheduler first.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import tarfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lablib.runs import documents
from lablib.runs.orders import CODE, ORIGIN
from lablib.runs.ssh import Host
from lablib.specs import LabError, write_atomic
from lablib.specs.paths import home

if TYPE_CHECKING:
    from lablib.runs.run import Run

EVERY = 5.0
"""Seconds between looks while the run goes on."""
LARGEST = 50
"""MB of the largest file that is copied: a log that runs over stays as it was."""
PULL = """\
cd {path} 2>/dev/null || exit 0
{look}
find . -type f \\( -name '*.json' -o -name '*.jsonl' -o -name '*_log.out' -o -name '*.log' -o -name '*.html' \\) \
  -not -path './checkpoints/*' -not -path './model/*' -not -path './data/*' -not -path './.*' \
  -newermt @{since} -size -{largest}M -print0 | tar --null -T - -cf - --ignore-failed-read 2>/dev/null
"""


def open_mirror(url: str) -> Path:
    """Copy a far run's small files here and go on doing so until it ends; gives the folder.

    Raises `LabError` where there is no run at that address, or ssh cannot reach it.
    """
    host, path = _parse(url)
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    folder = home() / "mirrors" / name / PurePosixPath(path).name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ORIGIN, json.dumps({"host": host.name, "path": path}))
    pull(folder)
    if not (folder / "recipe.json").is_file():
        raise LabError(f"There is no run at {url}")
    return folder


def origin(run: Path) -> tuple[Host, str] | None:
    """Host and path that a folder mirrors; None for a run of this machine."""
    told = documents.table(run / ORIGIN, "host", "path")
    return None if told is None else (Host(str(told["host"])), str(told["path"]))


def pull(folder: Path) -> None:
    """Bring what has changed. Raises `LabError` where ssh cannot reach it."""
    found = origin(folder)
    if found is None:
        raise LabError(f"{folder} is not a mirror")
    host, path = found
    newest = max(
        (file.stat().st_mtime for file in folder.rglob("*") if file.is_file() and file.name != ORIGIN), default=0
    )
    packed = host.shell(
        PULL.format(path=shlex.quote(path), look=_look(folder), since=max(0, int(newest) - 1), largest=LARGEST)
    )
    if not packed:
        return
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def refresh(folder: Path) -> bool:
    """Whether the folder mirrors a run; brings what has changed, unless the network is away: what is here can still be read."""
    if origin(folder) is None:
        return False
    with suppress(LabError):
        pull(folder)
    return True


def keep(run: Run) -> Run:
    """Pull every few seconds from a daemon thread while `run`, which is given back, is held by somebody and has not
    finished."""
    threading.Thread(target=_keep, args=(weakref.ref(run), threading.Event()), name="mirror", daemon=True).start()
    return run


def _keep(seen: weakref.ref[Run], wake: threading.Event) -> None:
    while (run := seen()) is not None and not run.state.finished:
        folder = run.path
        del run
        wake.wait(EVERY)
        try:
            pull(folder)
        except LabError:
            continue  # the lid was closed, or the network is away: the next look tries again


def _look(folder: Path) -> str:
    """The line that has the far side refresh what its scheduler says, with the code that the run itself uses."""
    order = documents.table(folder / "order.json", "profile")
    if order is None:
        return ":"
    code, python = order.get("code"), order["profile"].get("python") or "python3"
    return (
        f"PYTHONSAFEPATH=1 PYTHONPATH=../{CODE}/{code} {shlex.quote(python)} -m cluster.remote look . >/dev/null 2>&1"
        if code
        else ":"
    )


def _parse(url: str) -> tuple[Host, str]:
    parts = urlsplit(url)
    if parts.scheme != "ssh" or not parts.netloc or len(parts.path) < 2:
        raise LabError(f"{url!r}: write ssh://user@login-node/absolute/path/of/the/run")
    return Host(parts.netloc), parts.path
