"""Submission from a laptop to a login node, over one ssh connection.

The laptop sends its code (`cluster.snapshot`), the recipes and the profile; the login node, which needs only a Python
with the lab's packages, submits as it would for itself (`cluster.remote`). The runs come back as mirrors
(`lablib.runs.mirror`), which every screen can watch.

Where a site has slurmrestd instead of ssh, it would take the place of `Host` here; nothing of that is built.
"""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import snapshot
from lablib.runs import Run
from lablib.runs.mirror import origin
from lablib.runs.ssh import Host
from lablib.specs import LabError, Profile, Recipe

STORE = """\
mkdir -p {folder} && cd {folder} || exit 1
half=$(mktemp -d .half-XXXXXX) && chmod 755 $half && tar -xf - -C $half || exit 1
mv -T $half {name} 2>/dev/null || rm -r $half
[ -d {name} ]
"""


def submit(recipes: Sequence[Recipe], profile: Profile, after: Sequence[str] = (), **options: Any) -> list[Run]:
    """Submit at the profile's ``ssh`` host; `after` are ids of runs there, `options` those of `submit_all`.

    Raises `LabError` as `submit_all` does there, and where the host or the profile's python is not to be reached.
    """
    host, root = _place(profile)
    order = {
        "recipes": [json.loads(recipe.to_json()) for recipe in recipes],
        "profile": json.loads(profile.replace(ssh=None).to_json()),
        "after": list(after),
        "options": {name: value for name, value in options.items() if value is not None},
    }
    told = _call(host, profile, root, "submit", json.dumps(order).encode())
    return [Run.open(host.url(path)) for path in told["runs"]]


def ask(run: Run, what: str, **options: Any) -> dict[str, Any]:
    """Have the host of a mirrored run stop, resume, requeue or extend it. Raises `LabError` with its words."""
    found = origin(run.path)
    if found is None:
        raise LabError(f"run {run.id} is on this machine")
    host, path = found
    order = {"run": path, "options": options}
    return _call(host, run.order.profile, Path(path).parent, what, json.dumps(order).encode())


def url(run: Run) -> str:
    """The address that a mirrored run was opened with."""
    found = origin(run.path)
    return found[0].url(found[1]) if found else str(run.path)


def _place(profile: Profile) -> tuple[Host, Path]:
    if profile.ssh is None or profile.root is None:
        raise LabError(f"profile {profile.name}: submission over ssh needs ssh, and root as the login node sees it")
    return Host(profile.ssh), profile.root


def _call(host: Host, profile: Profile, root: Path, what: str, order: bytes) -> dict[str, Any]:
    """Run `cluster.remote` there, from this machine's own code, and read the JSON that it prints last."""
    name = snapshot.fingerprint(snapshot.SOURCE)
    _send(host, root, name)
    words = [
        "env",
        "PYTHONSAFEPATH=1",
        f"PYTHONPATH={snapshot.folder(root, name)}",
        profile.python or "python3",
        "-m",
        "cluster.remote",
        what,
    ]
    said = host.run(*words, stdin=order).decode()
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    if "error" in found:
        raise LabError(f"{host.name}: {found['error']}")
    return found


def _send(host: Host, root: Path, name: str) -> None:
    """This machine's code, unless it lies there already."""
    target = snapshot.folder(root, name)
    said = host.shell(f"[ -d {shlex.quote(str(target))} ] && echo there || true").split()
    if said[-1:] == [b"there"]:  # a login shell may print lines of its own before
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for relative in snapshot.files(snapshot.SOURCE):
            archive.add(snapshot.SOURCE / relative, arcname=relative.as_posix())
    host.shell(STORE.format(folder=shlex.quote(str(target.parent)), name=name), packed.getvalue())
