"""Every format of file gives the same documents; bad input is counted and set aside, and what lies beside it is kept."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data import corpus, shards
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Unreadable
from lablib.data.prepare import prepare
from lablib.data.sources import streams
from lablib.data.sources.files import Files
from lablib.data.sources.rows import document
from lablib.runs import Recorder
from lablib.specs import LabError, Prepare

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
LONG = " and some more words to pass the least length of a document"


def texts(path: Path) -> list[str]:
    return [one.text for one in Files(path).documents() if isinstance(one, Document)]


def aside(path: Path) -> Counter[str]:
    return Counter(one.kind for one in Files(path).documents() if isinstance(one, Unreadable))


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def record(kind: str, body: bytes, uri: str = "https://a.example/x", media: str = "text/plain") -> bytes:
    """A record by ISO 28500."""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
    head += (
        f"WARC-Record-ID: <urn:uuid:{zlib.crc32(body)}>\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def page(body: bytes, status: str = "200 OK", headers: str = "Content-Type: text/html", uri: str = "https://a.example/x") -> bytes:  # fmt: skip
    return record("response", f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body, uri, "application/http; msgtype=response")  # fmt: skip


HTML = """<html><head><title>T</title><script>var no = 1;</script></head><body><nav><a href="/">Home</a> <a href="/b">Menu</a></nav>
<main><article><h1>Café</h1><p>The garden is open from nine to five, and the roses are in bloom.</p></article></main>
<footer>Imprint and cookies</footer></body></html>"""


@pytest.mark.parametrize("ending", PACKERS)
def test_every_format_is_read_under_every_compression(tmp_path: Path, ending: str) -> None:
    pack = PACKERS[ending]
    code, tar = "def f():\n    return 'naïve'\n", io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, text in (("src/a.py", code), ("src/.hidden/b.py", "no"), ("src/logo.png", "no")):
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    contents = {
        "rows.jsonl": lines({"text": "row é"}, {"content": "row two"}),
        "prose.txt": "prose é".encode(),
        "tree.tar": tar.getvalue(),
        "crawl.warc": page(HTML.encode()),
        "crawl.wet": record("conversion", "wet é\ntext".encode()),
    }
    for name, data in contents.items():
        (tmp_path / (name + ending)).write_bytes(pack(data))
    found = {one.source: one for one in Files(tmp_path).documents()}
    assert {source: one.text for source, one in found.items()} == {
        f"rows.jsonl{ending}#1": "row é",
        f"rows.jsonl{ending}#2": "row two",
        f"prose.txt{ending}": "prose é",
        f"tree.tar{ending}/src/a.py": code,
        f"crawl.warc{ending}#1": "Café\n\nThe garden is open from nine to five, and the roses are in bloom.",
        f"crawl.wet{ending}#1": "wet é\ntext",
    }
    crawled = found[f"crawl.warc{ending}#1"]
    assert isinstance(crawled, Document)
    assert (crawled.url, crawled.time) == ("https://a.example/x", "2024-01-02T03:04:05Z")


def test_joined_archives_are_read_to_the_end(tmp_path: Path) -> None:
    """Common Crawl packs each record for itself; `cat` joins files."""
    for ending in (".gz", ".bz2", ".xz", ".zst"):
        parts = [PACKERS[ending](lines({"text": f"part {n}"})) for n in range(3)]
        (tmp_path / f"x.jsonl{ending}").write_bytes(b"".join(parts))
        assert texts(tmp_path / f"x.jsonl{ending}") == ["part 0", "part 1", "part 2"], ending


def test_parquet_columns_carry_provenance(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["one", None, "three"],
            "url": ["https://x.example/1", None, ""],
            "date": [datetime(2024, 5, 6, 7), None, None],
            "license": ["CC0-1.0", None, None],
            "synthetic": [0.25, None, None],
            "generation": pa.array([1, None, 0], pa.int32()),
            "unused": [[1, 2], [], None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    one, two, three = Files(tmp_path / "t.parquet").documents()
    assert isinstance(one, Document) and one.provenance == {
        "url": "https://x.example/1", "time": "2024-05-06T07:00:00", "synthetic": 0.25, "generation": 1}  # fmt: skip
    assert one.licence == "CC0-1.0" and isinstance(two, Unreadable) and two.kind == 'row without a "text"'
    assert isinstance(three, Document) and three.provenance == {} and three.source == "t.parquet#3"


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({}, (0.0, 0)),
        ({"synthetic": True}, (1.0, 1)),
        ({"synthetic": 0.3}, (0.3, 1)),
        ({"generation": 2}, (1.0, 2)),
        ({"synthetic": 0.5, "generation": 3}, (0.5, 3)),
        ({"synthetic": float("nan"), "generation": None}, (0.0, 0)),
        ({"generation": "The answer is 4"}, (0.0, 0)),  # another meaning of the word
    ],
)
def test_share_and_generation_complete_each_other(row: dict[str, object], made: tuple[float, int]) -> None:
    found = document({"text": "t", **row}, "d", "s", "")
    assert isinstance(found, Document) and (found.synthetic, found.generation) == made


@pytest.mark.parametrize("row", [{"synthetic": 2}, {"synthetic": 10**400}, {"generation": -1}, {"synthetic": 0, "generation": 1}, {"generation": 1.5}, {"generation": float("inf")}, {"generation": 10**400}])  # fmt: skip
def test_provenance_that_cannot_be_is_set_aside(row: dict[str, object]) -> None:
    found = document({"text": "t", **row}, "d", "s", "")
    assert isinstance(found, Unreadable) and found.kind == "provenance that cannot be"


def test_what_utf8_cannot_hold_is_in_no_corpus(tmp_path: Path) -> None:
    """Half of a surrogate pair in any string of a row, names of files and members that are no UTF-8."""
    odd = b"odd\xff.txt".decode("utf-8", "surrogateescape")
    rows = [
        *({"text": f"{name} {n}{LONG}", name: "a\ud800"} for name in ("source", "license", "url", "label", "domain", "id") for n in range(2)),
        {"\udfff": "no text, but\ud800", "date": "2024-01-01\ud80000:00"},
        {"text": "of an odd source" + LONG, "source": "\ud800", "generation": -1},
    ]  # fmt: skip
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.jsonl").write_bytes(lines(*rows))
    (folder / odd).write_text("a file" + LONG)
    (folder / f"{odd}.jsonl").write_bytes(lines({"text": "a row" + LONG}))
    with tarfile.open(folder / "t.tar", "w") as archive:
        archive.add(folder / odd, odd)
    source, built = Files(folder), build(folder, tmp_path / "built")
    assert len({source.stamp(), source.fingerprint(), Files(folder / odd).stamp()}) == 3
    found = [one for domain in built.domains for one in built.documents(domain)]
    assert {one.source for one in found} == {
        "a?",
        "odd?.txt",
        "odd?.txt.jsonl#1",
        *(f"x.jsonl#{n}" for n in range(3, 12)),
    }
    assert len(found) == 13 and {one.url for one in found} == {"", "a?"}
    counted = built.facts["domains"]["mine"]
    assert counted["duplicates"] == 1 and set(counted["aside"]) == {"id that another row has", 'row without a "text"', "provenance that cannot be"}  # fmt: skip


def test_dates_that_python_cannot_hold_cost_their_rows_only(tmp_path: Path) -> None:
    """The year 30828, and a time zone that there is not."""
    moments = pa.array([0, 10**15, 0], pa.timestamp("s"))
    for name, column in (("late", moments), ("zone", moments.cast(pa.timestamp("s", "Mars/Olympus")))):
        pq.write_table(pa.table({"text": ["one", "two", "three"], "date": column}), tmp_path / f"{name}.parquet")
    assert texts(tmp_path / "late.parquet") == ["one", "three"]
    assert aside(tmp_path / "late.parquet") == {"row cannot be read": 1}
    assert aside(tmp_path / "zone.parquet") == {"row cannot be read": 3}


def test_ids_are_compared_with_their_kind_and_an_empty_one_is_none(tmp_path: Path) -> None:
    ids = [-1, -2, "-1", True, 1, "1", "", "", None, None, -2]
    (tmp_path / "r.jsonl").write_bytes(lines(*({"text": f"row {n}", "id": name} for n, name in enumerate(ids))))
    assert texts(tmp_path / "r.jsonl") == [f"row {n}" for n in range(10)]


def test_times_are_iso_or_left_out() -> None:
    for given_time, kept in (("2013-05-20T08:26:31Z", True), ("2021-05", True), ("yesterday", False), (1684000000, False)):  # fmt: skip
        found = document({"text": "t", "date": given_time}, "d", "s", "")
        assert isinstance(found, Document) and found.time == (given_time if kept else "")


def test_bad_rows_are_set_aside_and_their_neighbours_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST", 200)
    rows = [
        b"\xef\xbb\xbf" + lines({"text": "first, behind a byte order mark", "id": 1}),
        b"{nope\n",
        b'{"text": "\xff\xfe"}\n',
        b"\n",
        lines({"content": 7}),
        lines(["a list"]),
        lines({"text": "x" * 500}),
        lines({"text": "second of an id", "id": 1}),
        lines({"text": "last", "id": "1"}),
    ]
    (tmp_path / "r.jsonl").write_bytes(b"".join(rows).rstrip(b"\n"))
    assert texts(tmp_path / "r.jsonl") == ["first, behind a byte order mark", "last"]
    assert aside(tmp_path / "r.jsonl") == {
        "row is not JSON": 1,
        "not UTF-8": 1,
        'row without a "text"': 1,
        "row is no object with a text": 1,
        "longer than a document may be": 1,
        "id that another row has": 1,
    }


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("form", ["jsonl", "warc", "tar", "txt"])
def test_what_lies_before_the_damage_is_kept(tmp_path: Path, ending: str, form: str) -> None:
    rng = [hash((n, 7)) & 0xFFFF_FFFF for n in range(3000)]  # incompressible, so that much lies before the cut
    words = [f"{n} {x:x} {x * 2654435761 % 2**61:x}{LONG}" for n, x in enumerate(rng)]
    if form == "tar":
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for n, text in enumerate(words[:1500]):
                info = tarfile.TarInfo(f"{n}.txt")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        data = out.getvalue()
    else:
        data = {"jsonl": lines(*({"text": text} for text in words)), "txt": "\n".join(words).encode(),
                "warc": b"".join(record("conversion", text.encode()) for text in words)}[form]  # fmt: skip
    packed = PACKERS[ending](data)
    (tmp_path / f"x.{form}{ending}").write_bytes(packed[: int(len(packed) * 0.9)])
    found = texts(tmp_path / f"x.{form}{ending}")
    if form == "txt":
        assert found == [], "half a document is no document"
    else:
        assert found == words[: len(found)] and 0 < len(found) < len(words)
    assert aside(tmp_path / f"x.{form}{ending}") == {"file is cut short or damaged": 1}


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("# SPDX-License-Identifier: Apache-2.0\n", "Apache-2.0"),
        ("/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */\n", "(GPL-2.0 WITH Linux-syscall-note) OR MIT"),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->\n", "CC-BY-4.0"),
        ("// no word of it\n", "not stated (your own files)"),
        ("x = 1\n" * 400 + "# SPDX-License-Identifier: MIT\n", "not stated (your own files)"),
    ],
)  # fmt: skip
def test_a_file_that_names_its_licence_keeps_it(tmp_path: Path, head: str, licence: str) -> None:
    (tmp_path / "a.c").write_text(head + "int main() { return 0; }\n")
    (one,) = Files(tmp_path).documents()
    assert isinstance(one, Document) and one.licence == licence


def test_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.txt.xz", "c.parquet", "d.warc", "e.tar", "f.jsonl.zst", "g.txt.bz2"):
        (tmp_path / name).write_bytes(b"This is a plain text, whatever its name says. " * 40)
    for name in ("h.txt", "i.jsonl", "j.parquet", "k.warc.gz"):
        (tmp_path / name).touch()
    (tmp_path / "l.py").write_bytes("latin é".encode("latin-1"))
    found = aside(tmp_path)
    assert texts(tmp_path) == [] and found["file is empty"] == 4 and found["not UTF-8"] == 1
    assert found["file is cut short or damaged"] + found["archive is damaged"] == 7


def test_pages_that_are_none_are_counted_by_reason(tmp_path: Path) -> None:
    latin = HTML.encode("latin-1")
    packed = gzip.compress(b"<p>" + b"zipped page" * 9 + b"</p>")
    records = [
        record("warcinfo", b"software: test"),
        page(latin, headers="Content-Type: text/html; charset=ISO-8859-1"),
        page(latin.replace(b"<head>", b'<head><meta charset="iso-8859-1">')),
        page(b"gone", status="404 Not Found"),
        page(b"%PDF", headers="Content-Type: application/pdf"),
        page(packed, headers="Content-Type: text/html\r\nContent-Encoding: gzip"),
        page(b"plain words", headers="Content-Type: text/plain; charset=nonsense"),
        record("conversion", b"\xff\xfe"),
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    found = texts(tmp_path / "x.warc")
    assert [text.split("\n")[0] for text in found] == ["Café", "Café", "zipped page" * 9, "plain words"]
    assert aside(tmp_path / "x.warc") == {"page was not found or moved": 1, "page is no text": 1, "not UTF-8": 1}
    (tmp_path / "y.warc").write_bytes(b"".join(records[:2])[:-60])
    assert aside(tmp_path / "y.warc") == {"record is cut short": 1}


def chunked(body: bytes) -> bytes:
    return b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_a_page_that_is_packed_wrongly_costs_no_other(tmp_path: Path) -> None:
    """Whatever a server says of a body, the archive goes on behind it, and half a page is no page."""
    zipped = gzip.compress(HTML.encode(), mtime=0)
    right = {
        "Content-Encoding: gzip": zipped,
        "content-encoding: deflate": zlib.compress(HTML.encode()),
        "Content-Encoding: br": pa.compress(HTML.encode(), codec="brotli", asbytes=True),
        "Content-Encoding: GZIP, x-gzip": gzip.compress(zipped),
        "Content-Encoding: identity": HTML.encode(),
        "Transfer-Encoding: chunked": chunked(HTML.encode()),
        "Transfer-Encoding: chunked\r\nContent-Encoding: gzip": chunked(zipped),
    }
    wrong = [
        *(("gzip", body) for body in (HTML.encode(), zipped[:-30], zipped[:20], zipped[:-3], zipped[:-8] + bytes(8))),
        *(("br", HTML.encode()), ("of my own", HTML.encode())),
    ]
    torn = [HTML.encode(), chunked(HTML.encode())[:-9], chunked(HTML.encode())[:-120], b"-4\r\n", b"0"]
    sent = [
        *(page(body, headers=f"Content-Type: text/html\r\n{head}") for head, body in right.items()),
        *(page(body, headers=f"Content-Encoding: {name}") for name, body in wrong),
        *(page(body, headers="Transfer-Encoding: chunked") for body in torn),
        page(HTML.encode(), headers="X: " + "a" * 200_000),
        page(b"<p>the last</p>"),
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(sent))
    found = texts(tmp_path / "x.warc")
    assert [text.split("\n")[0] for text in found] == ["Café"] * len(right) + ["the last"]
    assert aside(tmp_path / "x.warc") == {"page cannot be decoded": len(wrong) + len(torn) + 1}


def test_a_line_of_any_length_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB packed to 64 kB: the row is never held, and the rows around it are read."""
    monkeypatch.setattr(streams, "LONGEST", 2**20)
    with gzip.open(tmp_path / "x.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(lines({"text": "before"}) + b'{"text": "')
        for _ in range(64):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + lines({"text": "after"}))
    tracemalloc.start()
    found = list(Files(tmp_path / "x.jsonl.gz").documents())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.text for one in found] == ["before", "", "after"] and peak < 8 * 2**20


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")), max_size=12))
def test_lines_are_those_of_the_bytes(parts: list[bytes]) -> None:
    data = b"\n".join(parts)
    stream = io.BytesIO(data)
    fake = streams.Stream.__new__(streams.Stream)
    fake.damage, fake._at, fake._file = "", 0, io.BufferedReader(stream)  # type: ignore[arg-type]
    expected = [line if len(line) <= 20 else None for line in data.split(b"\n")]
    if expected and not data.split(b"\n")[-1]:
        expected.pop()
    assert list(streams.lines(fake, 20)) == expected


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_damage_is_fatal(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, cut or put in anywhere, before packing and after: reading ends, and nothing is raised."""
    table, tar = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {n} " * 5 for n in range(60)]}), table, row_group_size=20)
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    whole = {
        "jsonl": lines(*({"text": f"a {n}", "id": n} for n in range(20))),
        "parquet": table.getvalue(),
        "tar": tar.getvalue(),
        "warc": page(HTML.encode()) * 3 + page(gzip.compress(b"<p>x</p>", mtime=0), headers="Content-Encoding: gzip"),
    }
    form = data.draw(st.sampled_from(list(whole)))
    ending = data.draw(st.sampled_from(list(PACKERS))) if form != "parquet" else ""
    packed = PACKERS[ending](hurt(whole[form], data))
    path = tmp_path_factory.mktemp("hurt") / f"x.{form}{ending}"
    path.write_bytes(hurt(packed, data))
    list(Files(path).documents())


def hurt(content: bytes, data: st.DataObject) -> bytes:
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    put = data.draw(st.binary(max_size=20) | st.just(content[begin:end]))
    return content[:begin] + put + content[end if data.draw(st.booleans()) else len(content) :]


def build(folder: Path, target: Path) -> Corpus:
    target.mkdir()
    corpus.build([Files(folder)], target)
    return Corpus(target)


def test_what_was_set_aside_is_counted_by_domain_with_samples(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    (source / "a").mkdir(parents=True)
    (source / "b").mkdir()
    (source / "a" / "x.jsonl").write_bytes(lines({"text": "good" + LONG}) + b"bad row\n" * 30)
    (source / "b" / "empty.txt").touch()
    built = build(source, tmp_path / "built")
    assert built.facts["domains"]["a"]["aside"] == {"row is not JSON": 30} and built.domains == ["a"]
    assert built.facts["domains"]["b"]["aside"] == {"file is empty": 1}
    rows = [json.loads(line) for line in (built.folder / "dropped.jsonl").read_text().splitlines()]
    assert Counter(row["reason"].split(" [")[0] for row in rows) == {"row is not JSON": 20, "file is empty": 1}
    assert any(row["text"] == "bad row" and row["source"].startswith("a/x.jsonl#") for row in rows)


def test_a_source_with_nothing_to_read_is_an_error_that_teaches(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines({"question": "what?"}))
    with pytest.raises(LabError, match=r'nothing in it can be read \(rows.jsonl#1: row without a "text"\); give UTF-8'):
        build(tmp_path / "rows.jsonl", tmp_path / "built")


def test_corpora_keep_provenance_and_their_identity_sees_it(tmp_path: Path) -> None:
    rows = [{"text": f"{n}{LONG}", "source": "s", "licence": "MIT"} for n in range(6)]
    (tmp_path / "plain.jsonl").write_bytes(lines(*rows))
    told = [{**row, "url": f"https://x.example/{n}", "date": "2024-01-01"} for n, row in enumerate(rows)]
    told[0] |= {"synthetic": 1, "generation": 2}
    for name, these in (("told", told), ("turned", told[::-1]), ("relicensed", [{**row, "licence": "X"} for row in rows])):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "plain.jsonl").write_bytes(lines(*({**row, "domain": "plain"} for row in these)))
    plain = build(tmp_path / "plain.jsonl", tmp_path / "1")
    known, turned, other = (
        build(tmp_path / name, tmp_path / f"{name}-built") for name in ("told", "turned", "relicensed")
    )
    assert plain.hash == known.hash == other.hash, "the hash is of texts and domains alone"
    assert len({plain.identity, known.identity, other.identity}) == 3 and known.identity == turned.identity
    assert known.facts["domains"]["plain"]["provenance"] == {"url": 6, "time": 6, "synthetic": 1, "generation": 2}
    assert "provenance" not in plain.facts["domains"]["plain"]
    first = {one.text: one for one in known.documents("plain")}[f"0{LONG}"]
    assert first.provenance == {"url": "https://x.example/0", "time": "2024-01-01", "synthetic": 1.0, "generation": 2}


def test_counts_are_right_whatever_was_killed(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "x.jsonl").write_bytes(lines(*({"text": f"{n}{LONG}"} for n in range(40))) + b"bad\n" * 3)
    recipe = Prepare(corpus=str(source), vocab=300, heldout=0.2)
    cards = []
    for _ in range(2):
        run = Recorder.create(tmp_path / "runs", recipe)
        prepare(recipe, run)
        cards.append(shards.manifest(run.path / "data"))
        assert (run.path / "dropped" / "0-reading.jsonl").read_text().count("\n") == 3
    assert cards[0] == cards[1] and cards[0]["domains"]["mine"]["aside"] == {"row is not JSON": 3}
