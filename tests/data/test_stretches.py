"""Large files of rows in stretches: wherever they are cut, the rows, numbers, ids and counts of the file read in one go."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.data import corpus
from lablib.data.catalogue import sources_of
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Unreadable, silent
from lablib.data.scale import Team, corpora
from lablib.data.sources import formats, streams
from lablib.data.sources.files import Files, Piece
from lablib.data.sources.tables import TABLES, Stretch, mark
from lablib.specs import LabError, digest

LONGEST = 60
"""Bytes of a row in these tests, so that some are too long."""
ROWS = st.one_of(
    st.builds(lambda n, k: json.dumps({"text": f"row {n}", "id": k}).encode(), st.integers(0, 99), st.integers(-3, 3)),
    st.builds(lambda n: json.dumps({"id": str(n)}).encode(), st.integers(0, 3)),
    st.builds(lambda n: b'{"text": "an \\u0069d", "\\u0069d": %d}' % n, st.integers(-3, 3)),
    st.sampled_from([b"", b" ", b"{bad", b'{"text": "\xff", "id": 1}', b"x" * 200, b"[1]", b'\xef\xbb\xbf{"text": "b", "id": 2}']),
)  # fmt: skip
FILES = st.lists(st.tuples(ROWS, st.sampled_from([b"\n", b"\r\n"])), max_size=25)
QUIET = [HealthCheck.function_scoped_fixture]


def in_stretches(path: Path, stretches: list[Stretch], folder: Path) -> list[object]:
    """What the stretches hold, each told only what scans of those before it found."""
    table, row, known, found = TABLES[path.suffix], 0, set[int](), list[object]()
    for number, stretch in enumerate(stretches):
        scan = table.scan(path, stretch)
        earlier = folder / f"{number}.npy"
        np.save(earlier, np.array(sorted(known.intersection(scan.ids.tolist())), np.uint64))
        found += table.read(path, "d", "s", replace(stretch, row=row, earlier=earlier))
        row, known = row + scan.rows, known.union(scan.ids.tolist())
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET)
@given(FILES, st.booleans(), st.integers(1, 40))
def test_json_lines_in_any_stretches_are_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[bytes, bytes]], ended: bool, count: int
) -> None:
    """Cuts at any byte: inside rows that are too long or no UTF-8, between CR and LF, before a last line without an end."""
    monkeypatch.setattr(streams, "LONGEST", LONGEST)
    path = tmp_path / "x.jsonl"
    data = b"".join(row + end for row, end in rows)
    path.write_bytes(data if ended else data.rstrip(b"\r\n"))
    whole = list(TABLES[".jsonl"].read(path, "d", "s"))
    assert in_stretches(path, TABLES[".jsonl"].cut(path, count), tmp_path) == whole
    kept = path.read_bytes()
    assert TABLES[".jsonl"].scan(path, Stretch()).rows == kept.count(b"\n") + (not kept.endswith(b"\n") and kept != b"")


@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(st.lists(st.tuples(st.sampled_from([b"good", b"\xff", None]), st.integers(-2, 4)), min_size=1, max_size=20), st.integers(1, 5), st.integers(2, 9), st.booleans())  # fmt: skip
def test_parquet_in_any_row_groups_is_the_file(
    tmp_path: Path, rows: list[tuple[bytes | None, int]], size: int, count: int, hurt: bool
) -> None:
    """With text that is no UTF-8, ids that come again, and a page that is damaged."""
    path = tmp_path / "x.parquet"
    raw = pa.array([text for text, _ in rows], pa.binary())
    texts = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:], raw.buffers()[0])
    table = pa.table({"text": texts, "id": [number for _, number in rows], "other": ["x"] * len(rows)})
    pq.write_table(table, path, row_group_size=size, compression="zstd", use_dictionary=False)
    if hurt:
        place = pq.read_metadata(path).row_group(0).column(0).data_page_offset
        data = bytearray(path.read_bytes())
        data[place : place + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
    whole = list(TABLES[".parquet"].read(path, "d", "s"))
    stretches = TABLES[".parquet"].cut(path, count)
    assert stretches or len(rows) <= size or count == 1
    if stretches:
        assert in_stretches(path, stretches, tmp_path) == whole
    assert not hurt or any(isinstance(one, Unreadable) and "damaged" in one.reason for one in whole)


def test_an_id_is_marked_alike_by_every_process_and_minus_one_is_not_minus_two() -> None:
    """Python's own hash is salted in every process, and hash(-1) == hash(-2)."""
    code = "from lablib.data.sources.tables import mark; print(mark('a'))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(found) == mark("a")
    assert len({mark(name) for name in (-1, -2, 1, "1", "-1", "", "\ud800")}) == 7


def test_what_can_be_cut(tmp_path: Path) -> None:
    """Rows of JSON and Parquet; nothing that is compressed or one text; a file below twice the size stays whole."""
    for name in ("a.jsonl", "b.jsonl.gz", "c.txt", "d.NDJSON"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    pq.write_table(pa.table({"text": ["x" * 50] * 100}), tmp_path / "one.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"x" * 1000)
    found = {path.name: len(formats.cut(path, 100)) for path in sorted(tmp_path.iterdir())}
    assert found == {"a.jsonl": 10, "b.jsonl.gz": 0, "broken.parquet": 0, "c.txt": 0, "d.NDJSON": 10, "one.parquet": 0}
    assert not formats.cut(tmp_path / "a.jsonl", 501) and len(formats.cut(tmp_path / "a.jsonl", 500)) == 2


def test_a_part_is_small_files_together_or_a_stretch(tmp_path: Path) -> None:
    for name, size in (("a", 30), ("b", 30), ("c", 400), ("d", 30)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"x" * size)
    parts = Files(tmp_path).parts(100)
    names = [[(piece.path.stem, piece.stretch and piece.stretch.begin) for piece in part.only] for part in parts]
    assert names == [[("a", None), ("b", None), ("c", 0)], [("c", 100)], [("c", 200)], [("c", 300)], [("d", None)]]
    assert [one for part in parts for one in part.sums()][3:6] == [Files(tmp_path).sums()[2]] * 3
    whole = Files(tmp_path).parts(100, inside=False)
    assert [[piece.path.stem for piece in part.only] for part in whole] == [["a", "b", "c"], ["d"]]
    assert Files(tmp_path, only=(Piece(tmp_path / "a.jsonl"),)).files() == [tmp_path / "a.jsonl"]


PACKED = {
    "jsonl.gz": lambda text: gzip.compress(json.dumps({"text": text}).encode()),
    "jsonl.zst": lambda text: pa.compress(json.dumps({"text": text}).encode(), "zstd", asbytes=True),
    "warc.gz": lambda text: gzip.compress(
        f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(text)}\r\n\r\n{text}\r\n\r\n".encode()
    ),
}
"""A file with one document."""


@pytest.mark.parametrize("form", PACKED)
def test_each_compressed_file_is_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """From the size of a part on, in a folder and by a pattern; smaller ones come together. The corpus is that of one pass."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    texts = [f"document {number} {random.Random(number).randbytes(200).hex()}" for number in range(5)]
    for number, text in enumerate(texts):
        file = tmp_path / "crawl" / f"segment-{number % 2}" / f"{number}.{form}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PACKED[form](text))
    (tmp_path / "crawl" / "segment-0" / "notes.txt").write_text("no part of the pattern")
    (source,) = sources_of(str(tmp_path / "crawl" / "*" / f"*.{form}"))
    assert isinstance(source, Files) and source == Files(tmp_path / "crawl", f"*/*.{form}")
    parts = source.parts(100)
    assert [[one.text for one in part.documents() if isinstance(one, Document)] for part in parts] == [
        [texts[number]] for number in (0, 2, 4, 1, 3)
    ]
    assert len(Files(tmp_path / "crawl").parts(100)) == 5, "the notes come with the next file"
    assert len(source.parts(10_000)) == 1
    (tmp_path / "plain").mkdir()
    corpus.build([source], tmp_path / "plain", silent)
    one, other = Corpus(tmp_path / "plain"), Corpus(corpora.read([source], "key", Team(), 100, silent))
    assert len(other.parts) == 5 and one.facts["domains"].keys() == {"segment-0", "segment-1"}
    assert one.facts == other.facts
    assert all(list(one.documents(name)) == list(other.documents(name)) for name in one.domains)


def test_a_pattern_that_fits_nothing_or_is_none(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("a name, and no pattern")
    assert sources_of(str(tmp_path / "a[1].txt")) == (Files(tmp_path / "a[1].txt"),)
    with pytest.raises(LabError, match="nor a folder, file or pattern of files here"):
        sources_of(str(tmp_path / "*.warc"))
    with pytest.raises(LabError, match=r"names no file; write .*\*\*/\*"):
        sources_of(str(tmp_path / "**"))
    with pytest.raises(LabError, match=r"\*\*\.txt is no pattern; write \*\*/"):
        sources_of(str(tmp_path / "**.txt"))


@settings(max_examples=5, deadline=None, suppress_health_check=QUIET)
@given(st.integers(900, 9000), st.integers(0, 3), st.booleans())
def test_a_corpus_of_stretches_is_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, seed: int, cold: bool
) -> None:
    """Through the team and the joining: hash, counts, licences, sources, order, index and samples, with copies and ids that
    come again far apart, more rows that are too long than samples are kept, and small files around the large ones."""
    base = tmp_path / digest([size, seed, cold])
    rng = np.random.default_rng(seed)
    mine = base / "mine"
    mine.mkdir(parents=True)
    texts = [
        f"document {number} of some length, {'x' * int(rng.integers(5, 300))}" for number in rng.integers(0, 60, 90)
    ]
    rows = [json.dumps({"text": text, "id": int(rng.integers(0, 300))}).encode() for text in texts]
    odd = [b"y" * 3000, b"{bad", b'{"text": "\xff"}', b"", b'{"text": "short"}', b'{"body": 1}']
    lines = [*rows, *(odd[int(n)] for n in rng.integers(0, len(odd), 60)), *[b"z" * 2500] * 25]
    (mine / "b.jsonl").write_bytes(b"\n".join(lines[at] for at in rng.permutation(len(lines))))
    (mine / "a.txt").write_text("A text of more than thirty-two characters.")
    (mine / "d.jsonl").write_bytes(b"\r\n".join(rows[:3]))
    table = pa.table({"text": texts, "id": rng.integers(0, 300, len(texts))})
    pq.write_table(table, mine / "c.parquet", row_group_size=7, compression="none", use_dictionary=False)
    monkeypatch.setenv("LAB_HOME", str(base / "home"))
    monkeypatch.setattr(streams, "LONGEST", 2000)
    plain = base / "plain"
    plain.mkdir()
    corpus.build([Files(mine)], plain, silent)
    one, other = Corpus(plain), Corpus(corpora.read([Files(mine)], "key", Team(), size, silent))
    assert len(other.parts) > 3 and other.facts == one.facts and one.facts["domains"]["mine"]["aside"]["id that another row has"]  # fmt: skip
    assert list(other.documents("mine")) == list(one.documents("mine"))
    assert (other.index("mine") == one.index("mine")).all()
    assert (other.folder / "dropped.jsonl").read_text() == (one.folder / "dropped.jsonl").read_text()


def test_a_file_that_two_sources_have_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second reading's rows are copies, not rows with ids that are taken."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    mine, plain = tmp_path / "mine", tmp_path / "plain"
    mine.mkdir()
    plain.mkdir()
    rows = [json.dumps({"text": f"document {n} of some length, and a bit more", "id": n}) for n in range(40)]
    (mine / "b.jsonl").write_text("\n".join(rows))
    sources = [Files(mine), Files(mine / "b.jsonl")]
    corpus.build(sources, plain, silent)
    joined = Corpus(corpora.read(sources, "key", Team(), 500, silent))
    assert joined.facts == Corpus(plain).facts and joined.facts["domains"]["b"]["duplicates"] == len(rows)
