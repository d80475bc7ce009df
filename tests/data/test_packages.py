"""Packages as containers: real pip against a folder of wheels made here, so that no network is needed."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lablib.data import packages
from lablib.data.packages import Package
from lablib.specs import LabError

WHEEL = "toydata-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the registry; pip sees no other."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(folder: Path, text: str = "hello") -> str:
    """Write a wheel whose module must never be run; returns its SHA-256."""
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("toydata/__init__.py", "raise SystemExit('this package was imported')")
        archive.writestr("toydata/b.txt", text)
        archive.writestr("toydata/a.txt", text)
        archive.writestr("toydata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toydata\nVersion: 1.0\n")
        archive.writestr(
            "toydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toydata-1.0.dist-info/RECORD", "")
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


def package(sha256: str) -> Package:
    return Package("toydata", "1.0", WHEEL, sha256, 1000, "MIT")


def test_fetches_verifies_and_reuses(index: Path, home: Path) -> None:
    wanted = package(make_wheel(index))
    reported: list[tuple[float, float]] = []
    path = packages.fetch(wanted, lambda done, total: reported.append((done, total)))
    assert path.parent == home / "assets" / "packages"
    assert reported == [(1000, 1000)]
    (index / WHEEL).unlink()  # the second call needs no registry
    assert packages.fetch(wanted) == path
    assert [item.name for item in path.parent.iterdir()] == [WHEEL], "temporary files are left"


def test_damaged_cache_is_fetched_again(index: Path, home: Path) -> None:
    wanted = package(make_wheel(index))
    packages.fetch(wanted).write_bytes(b"half of i")
    assert hashlib.sha256(packages.fetch(wanted).read_bytes()).hexdigest() == wanted.sha256


def test_other_content_is_refused(index: Path, home: Path) -> None:
    make_wheel(index)
    with pytest.raises(
        LabError, match=r"pypi:toydata==1\.0 could not be fetched(.|\n)*(MATCH THE HASHES|matched the hashes)"
    ):
        packages.fetch(package("0" * 64))
    assert not package("").path.exists()


def test_place_names_both_sums(tmp_path: Path) -> None:
    (tmp_path / "found").write_bytes(b"x")
    with pytest.raises(
        LabError, match=rf"sha256 of found is {hashlib.sha256(b'x').hexdigest()}, but {'0' * 64} is pinned"
    ):
        packages.place(tmp_path / "found", tmp_path / "kept", "0" * 64, "pypi:x==1")
    assert not (tmp_path / "kept").exists()


def test_missing_package_says_what_to_do(index: Path, home: Path) -> None:
    with pytest.raises(LabError, match=r"No matching distribution found(.|\n)*Check the network"):
        packages.fetch(package("0" * 64))


def test_source_distributions_are_never_built(index: Path, home: Path) -> None:
    """Pip runs the build backend of one even to download it: the fetch must refuse it and leave the trap untouched."""
    trap = home.parent / "ran"
    backend = f"def prepare_metadata_for_build_wheel(*a, **k): open({str(trap)!r}, 'w')\nbuild_wheel = prepare_metadata_for_build_wheel\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "trap"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": project, "trap.py": backend, "PKG-INFO": "Name: toydata\nVersion: 1.0\n"}
    with tarfile.open(index / "toydata-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"toydata-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    sha256 = hashlib.sha256((index / "toydata-1.0.tar.gz").read_bytes()).hexdigest()
    with pytest.raises(LabError, match="could not be fetched"):
        packages.fetch(package(sha256))
    assert not trap.exists()
    plain = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(home), "toydata"]
    subprocess.run(plain, capture_output=True, check=False)
    assert trap.exists(), "the trap does not work, so the test above shows nothing"


def test_credentials_are_not_repeated() -> None:
    words = packages._last_words("ERROR: no route to https://me:secret@registry.example/simple")
    assert "secret" not in words and "registry.example/simple" in words


@pytest.mark.parametrize("form", ["zip", "tgz"])
def test_members_come_sorted(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("d/b.txt", "d/a.txt", "d/c.bin"):
                archive.writestr(name, name)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name in ("d/b.txt", "d/a.txt", "d/c.bin"):
                member = tarfile.TarInfo(name)
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))
    assert list(packages.members(path, r"\.txt$")) == [("d/a.txt", b"d/a.txt"), ("d/b.txt", b"d/b.txt")]


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("hello")
    with pytest.raises(LabError, match="cannot be read as an archive"):
        list(packages.members(tmp_path / "x.whl", ""))
