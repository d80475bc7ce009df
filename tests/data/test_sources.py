"""Sources: your own files, the hub's interface on local data, and what this machine has."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from lablib.data import packages
from lablib.data.documents import Unreadable
from lablib.data.sources import debian, machine, mail, rdb
from lablib.data.sources.files import Files
from lablib.data.sources.hub import Hub
from lablib.data.sources.reference import plain
from lablib.specs import LabError


def test_folder_domains(tmp_path: Path) -> None:
    root = tmp_path / "My Texts"
    (root / "A b").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "A b" / "x.txt").write_bytes("one\r\ntwo\0 é".encode())
    (root / ".git" / "config.txt").write_text("hidden")
    (root / "top.md").write_text("top")
    (root / "image.png").write_bytes(b"\x89PNG")
    with gzip.open(root / "rows.jsonl.gz", "wt") as file:
        file.write('{"text": "r1", "domain": "Other", "licence": "CC0", "label": "good"}\n\n{"text": "r2"}\n')
    found = [(d.domain, d.source, d.licence, d.text, d.label) for d in Files(root).documents()]
    own = "not stated (your own files)"
    assert found == [
        ("a-b", "A b/x.txt", own, "one\ntwo é", ""),
        ("other", "rows.jsonl.gz#1", "CC0", "r1", "good"),
        ("my-texts", "rows.jsonl.gz#3", own, "r2", ""),
        ("my-texts", "top.md", own, "top", ""),
    ]


def test_folder_fingerprint_is_of_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "texts").mkdir(parents=True)
        (tmp_path / name / "texts" / "a.txt").write_text("same")
    first, second = (Files(tmp_path / name / "texts") for name in ("one", "two"))
    assert first.fingerprint() == second.fingerprint(), "where a folder lies must not matter"
    (second.path / "a.txt").write_text("diff")
    assert first.fingerprint() != second.fingerprint()


def test_empty_folder_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"holds no text: files must end in \.jsonl.*\.txt.*may be compressed"):
        Files(tmp_path).fetch()


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` loads with its own "json" loader: the code path of the hub without a network."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny-set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"row {n} é"}) + "\n" for n in range(10)))
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"text": null}\n')
    return folder


def test_hub_path_streams(dataset: Path) -> None:
    source = Hub.parse(f"hf:{dataset}")
    source.fetch()
    *found, missing = source.documents()
    assert isinstance(missing, Unreadable) and missing.reason == 'row without a "text"'
    assert [d.text for d in found] == [f"row {n} é" for n in range(10)]
    assert {d.domain for d in found} == {"tiny-set"} and found[3].source == f"hf:{dataset}/train/train.jsonl#3"
    capped = Hub.parse(f"hf:{dataset}", max_bytes=25)
    assert [d.text for d in capped.documents()] == ["row 0 é", "row 1 é", "row 2 é"], "8 bytes a row"
    assert capped.fingerprint() != source.fingerprint()


@pytest.mark.parametrize("suffix", ["-missing", ":noconfig", "::test"])
def test_hub_errors_teach(dataset: Path, suffix: str) -> None:
    with pytest.raises(LabError, match=r"cannot be opened(.|\n)*Check the name"):
        Hub.parse(f"hf:{dataset}{suffix}").fetch()


def test_hub_needs_a_text_column(dataset: Path) -> None:
    (dataset / "train.jsonl").write_text('{"q": "x"}\n')
    with pytest.raises(LabError, match=r"columns \['q'\], and none of text"):
        Hub.parse(f"hf:{dataset}").fetch()
    with pytest.raises(LabError, match="write hf:<data set>"):
        Hub.parse("hf:a:b:c:d")


def test_a_hub_set_of_code_and_tests_is_read(dataset: Path) -> None:
    (dataset / "train.jsonl").write_text('{"code": "x = 1", "tests": "assert x"}\n')
    source = Hub.parse(f"hf:{dataset}")
    source.fetch()
    assert [one.text for one in source.documents()] == ["x = 1\n\n\nassert x\n"]  # type: ignore[union-attr]


def test_standard_library_is_read() -> None:
    found = {d.source: d for d in machine.STDLIB.documents()}
    assert "class JSONDecodeError" in found["stdlib/json/decoder.py"].text
    assert not any("/test/" in source or "site-packages" in source for source in found)
    assert len(found) > 300 and machine.STDLIB.unavailable() == ""


def test_documentation_markup_becomes_text() -> None:
    assert plain("<p>One&amp;two <code>x</code></p> <ul><li>a</li> <li> b</li></ul>") == "One&two x\na\nb"


def test_missing_tools_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "missing", lambda program: True)
    assert "no npm" in mail.MAIL.unavailable() and "no apt-get and no dpkg-deb" in debian.BOOKSHELF.unavailable()
    with pytest.raises(LabError, match="needs Debian or Ubuntu"):
        debian.BOOKSHELF.fetch()


def xdr(kind: int, flags: int, *body: bytes) -> bytes:
    """One item of R's serialisation."""
    return struct.pack(">i", kind | flags) + b"".join(body)


def r_string(text: str) -> bytes:
    return xdr(9, 0, struct.pack(">i", len(text.encode())), text.encode())


def r_texts(*texts: str) -> bytes:
    return xdr(16, 0, struct.pack(">i", len(texts)), *map(r_string, texts))


def test_r_database(tmp_path: Path) -> None:
    """Written here by the rules of R Internals; the Debian package itself is read where apt works."""
    head = b"X\n" + struct.pack(">iii", 2, 0, 0)
    packed = zlib.compress(head + r_texts("EMMA", "", "She was é"))
    chunk = struct.pack(">i", len(packed)) + packed
    (tmp_path / "R.rdb").write_bytes(chunk)
    span = xdr(13, 0, struct.pack(">iii", 2, 0, len(chunk)))
    names = lambda *n: xdr(2, 0x400, xdr(1, 0, r_string("names")), r_texts(*n), xdr(254, 0))  # noqa: E731
    variables = xdr(19, 0x200, struct.pack(">i", 1), span, names("emma"))
    index = xdr(19, 0x200, struct.pack(">i", 1), variables, names("variables"))
    # the second "names" is written in full here; R would refer back to the first
    (tmp_path / "R.rdx").write_bytes(gzip.compress(head + index))
    assert rdb.load(tmp_path / "R") == {"emma": ["EMMA", "", "She was é"]}
    (tmp_path / "R.rdb").write_bytes(chunk[:20])
    with pytest.raises(LabError, match="not an R database"):
        rdb.load(tmp_path / "R")


@pytest.mark.slow
@pytest.mark.skipif(bool(debian.BOOKSHELF.unavailable()), reason="no apt-get here")
def test_debian_books_and_dictionaries() -> None:
    for source in (debian.BOOKSHELF, debian.DICTIONARIES):
        source.fetch()
    novels = {d.source.rpartition("/")[2]: d.text for d in debian.BOOKSHELF.documents()}
    assert len(novels) == 6 and "handsome, clever, and rich" in novels["emma"]
    assert sum(len(d.text) for d in debian.DICTIONARIES.documents()) > 5e6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here")
def test_mail_is_labelled() -> None:
    mail.MAIL.fetch()
    labels = [d.label for d in mail.MAIL.documents()]
    assert (labels.count("ham"), labels.count("spam")) == (4150, 1896)
