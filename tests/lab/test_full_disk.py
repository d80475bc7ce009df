"""A full disk: a real file system of a few kilobytes, one clear message, and nothing that was saved is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lablib.specs import Prepare


def on_a_tiny_disk(folder: Path, size: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where `folder` is a fresh file system of `size`, seen by nobody else and gone with it."""
    script = f"mount -t tmpfs -o size={size} tmpfs {folder} && {command}"
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, timeout=240)


@pytest.fixture
def disk(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    if on_a_tiny_disk(folder, "64k", "true").returncode:
        pytest.skip("this machine allows no private mounts, so no small disk can be made")
    return folder


def test_submitting_onto_a_full_disk_is_one_clear_message(disk: Path, tmp_path: Path) -> None:
    Prepare(corpus=str(tmp_path)).save(tmp_path / "r.toml")
    fill = f"dd if=/dev/zero of={disk}/filler bs=1k count=100 2>/dev/null; "
    submit = f"LAB_RUNS={disk}/runs {sys.executable} -m lab submit {tmp_path}/r.toml; echo code $?"
    done = on_a_tiny_disk(disk, "64k", fill + submit)
    assert "code 2" in done.stdout and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_a_document_that_does_not_fit_leaves_the_old_one_whole(disk: Path) -> None:
    code = f"""
from pathlib import Path
from lablib.specs import write_atomic
path = Path("{disk}/d.json")
write_atomic(path, "old" * 100)
try:
    write_atomic(path, "new" * 100_000)
except OSError as error:
    print(error.strerror)
print(path.read_text() == "old" * 100, sorted(p.name for p in path.parent.iterdir()))
"""
    (disk.parent / "code.py").write_text(code)
    done = on_a_tiny_disk(disk, "64k", f"{sys.executable} {disk.parent}/code.py")
    assert "No space left" in done.stdout and "True ['d.json']" in done.stdout, done.stdout + done.stderr
