"""A data set of the hub in parts, a file each: the rows, names and counts of one pass, also where a cap stops it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.data import corpus, prepare
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.scale import Team, corpora
from lablib.data.sources import hub
from lablib.data.sources.hub import Hub, Shards
from lablib.runs import Recorder
from lablib.specs import LabError, Prepare, digest


def texts(seed: int, files: int = 6, rows: int = 12) -> list[list[str | None]]:
    """Rows of files with copies in a file and across files, short texts and rows without one."""
    rng, known, made = random.Random(seed), list[str](), list[list[str | None]]()
    for _ in range(files):
        new = [" ".join(f"w{rng.getrandbits(24):x}" for _ in range(rng.randint(10, 60))) for _ in range(rows)]
        old = rng.sample(known, min(3, len(known))) + new[:2]
        known += new
        made.append([*new, *old, "short", None])
    return made


def stored(folder: Path, form: str) -> Path:
    """A data set as the hub has it: files of one split, and one of another."""
    folder.mkdir(parents=True)
    names = [f"train-{number:05}-of-00006" for number in range(6)]
    for name, rows in [*zip(names, texts(1), strict=True), ("test-00000-of-00001", ["of the test"])]:
        table = pa.Table.from_pylist([{"text": one, "url": f"https://x.example/{name}"} for one in rows])
        if form == "parquet":
            pq.write_table(table, folder / f"{name}.parquet")
        else:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return folder


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return stored(tmp_path / "web", "parquet")


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_file_is_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Beside what was written: each row under its file's name and its number in it."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = Hub(str(stored(tmp_path / "web", form)))
    found = [
        [(one.source, one.text) for one in part.documents() if isinstance(one, Document)] for part in source.parts(1)
    ]
    name = f"hf:{tmp_path / 'web'}/train/train-{{:05}}-of-00006.{form}#{{}}"
    assert found == [
        [(name.format(file, n), text) for n, text in enumerate(rows) if text is not None]
        for file, rows in enumerate(texts(1))
    ]
    assert [one for part in source.parts(1) for one in part.documents()] == list(source.documents())
    monkeypatch.setattr(hub, "MOST", 4)
    parts = source.parts(1)
    assert len(parts) == 4 and [one for part in parts for one in part.documents()] == list(source.documents())
    assert len({part.fingerprint() for part in parts} | {source.fingerprint()}) == 5


def recipe(dataset: Path, **changes: object) -> Prepare:
    return Prepare(**{"corpus": f"hf:{dataset}", "vocab": 300, "heldout": 0.1, "dedup": {"threshold": 0.8}, **changes})  # type: ignore[arg-type]


def content(base: Path, wanted: Prepare, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """SHA-256 of every file of the data and tokenizer of a run in a cache of its own."""
    patch.setenv("LAB_HOME", str(base / "home"))
    runs = [Recorder.create(base / "runs", one) for one in [*wanted.shares()[1:], wanted]]
    for run in runs:
        prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    folders = [runs[-1].path / name for name in ("data", "tokenizer", "dropped")]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(runs[-1].path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def whole(base: Path, wanted: Prepare, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """The content of a run that reads the data set in one go."""
    with patch.context() as inner:
        inner.setattr(hub, "MOST", 1)
        made = content(base, wanted, inner)
    assert not list((base / "home" / "data" / "corpora").glob("*/part-*"))
    return made


def test_workers_do_not_matter(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes: the bytes of one that reads it whole."""
    wanted = recipe(dataset)
    assert content(tmp_path, wanted.replace(threads=2), monkeypatch) == whole(tmp_path / "whole", wanted, monkeypatch)  # fmt: skip
    assert len(Corpus(next((tmp_path / "home" / "data" / "corpora").glob("[!.]*"))).parts) == 6


def test_workers_do_not_matter_to_a_cap(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs side by side. The cap falls into a third file; parts of two files are cut elsewhere."""
    wanted = recipe(dataset, max_bytes="9 kB")
    made = whole(tmp_path / "whole", wanted, monkeypatch)
    assert content(tmp_path, wanted.replace(tasks=3), monkeypatch) == made
    assert len(Corpus(next((tmp_path / "home" / "data" / "corpora").glob("[!.]*"))).parts) == 3
    monkeypatch.setattr(hub, "MOST", 3)
    assert content(tmp_path / "groups", wanted, monkeypatch) == made


@dataclass
class Stream:
    """As `datasets.IterableDataset`: rows in shards; notes which shards were opened, and how many rows were taken."""

    shards: list[list[dict[str, str]]]
    opened: list[int] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    info: Any = field(default_factory=lambda: SimpleNamespace(license="CC0"))

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    def shard(self, count: int, index: int) -> Iterator[dict[str, str]]:
        assert count == self.num_shards
        self.opened.append(index)
        for row in self.shards[index]:
            self.rows.append(row["text"])
            yield row


def streamed(shards: Sequence[Sequence[str]], cap: int | None, patch: pytest.MonkeyPatch) -> tuple[Hub, Stream]:
    """A data set of these texts, and its stream."""
    source, stream = Hub("a/set", max_bytes=cap), Stream([[{"text": text} for text in shard] for shard in shards])
    names = tuple(f"{number}.parquet" for number in range(len(shards)))
    patch.setattr(Hub, "_shards", lambda self: Shards(self, names, 0, stream))
    return source, stream


def read(source: Hub, home: Path, patch: pytest.MonkeyPatch) -> tuple[Path, list[float]]:
    """The folder of the corpus read in parts in a cache of its own, and what was reported."""
    patch.setenv("LAB_HOME", str(home))
    told: list[float] = []
    with Team() as team:
        return corpora.read([source], digest(str(home)), team, 1, lambda done, total: told.append(done)), told


def facts(folder: Path) -> tuple[object, ...]:
    """A corpus' documents in order, counts and samples; only the number of parts is left out."""
    built = Corpus(folder)
    rows = [(one.text, one.source) for domain in built.domains for one in built.documents(domain)]
    samples = folder / "dropped.jsonl"
    return rows, built.facts["domains"], built.hash, built.identity, samples.read_text() if samples.is_file() else ""


TEXTS = st.sampled_from(["", "short", "x" * 100, *(f"{letter} " * 20 for letter in "abcdefgh"), "é" * 40])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(TEXTS, max_size=5), min_size=2, max_size=7), st.integers(0, 900))
def test_parts_up_to_a_cap_are_the_stream_up_to_the_cap(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[str]], cap: int
) -> None:
    """Empty files, files that end at the cap, rows without a byte behind it, copies across files."""
    base = tmp_path_factory.mktemp("capped")
    with pytest.MonkeyPatch.context() as patch:
        source, _ = streamed(shards, cap, patch)
        (base / "whole").mkdir()
        try:
            corpus.build((source,), base / "whole")
        except LabError as error:
            with pytest.raises(LabError) as raised:
                read(source, base / "home", patch)
            assert str(raised.value) == str(error)
        else:
            assert facts(read(source, base / "home", patch)[0]) == facts(base / "whole")


def test_no_more_is_read_than_the_cap_may_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 files of ten rows of 100 bytes and a cap of 5,450: the first, as many as its size tells, one across the cap again."""
    shards = [[f"{file:02} {row} {'x' * 95}" for row in range(10)] for file in range(40)]
    source, stream = streamed(shards, 5450, monkeypatch)
    folder, told = read(source, tmp_path, monkeypatch)
    assert Corpus(folder).bytes("set") == 5400 and told[-1] == 1
    assert stream.opened == [0, 1, 2, 3, 4, 5, 5]
    small, stream = streamed(shards, 250, monkeypatch)
    read(small, tmp_path / "small", monkeypatch)
    assert stream.opened == [0] and len(stream.rows) == 3, "nothing beyond the row that was too much"


def test_a_read_that_was_stopped_goes_on_with_the_file_that_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [[f"{file} {row} {'x' * 95}" for row in range(10)] for file in range(8)]
    source, stream = streamed(shards, 6000, monkeypatch)
    real: Callable[..., Iterator[Any]] = Stream.shard

    def broken(self: Stream, count: int, index: int) -> Iterator[dict[str, str]]:
        if index == 4:
            raise OSError("the network is gone")
        yield from real(self, count, index)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "shard", broken)
        with pytest.raises(OSError, match="network"):
            read(source, tmp_path, patch)
    assert stream.opened == [0, 1, 2, 3]
    read(source, tmp_path, monkeypatch)
    assert stream.opened == [0, 1, 2, 3, 4, 5, 6, 6], "60 bytes were left for the seventh"


def test_each_data_set_has_a_cap_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one without a cap, whose parts have no beginning."""
    shards = [[f"{file} {row} {'x' * 95}" for row in range(10)] for file in range(4)]
    source, _ = streamed(shards, 1500, monkeypatch)
    other = replace(source, name="a/other", max_bytes=None)
    parts = corpora.cut([source, other], 1)
    assert len(parts) == 8
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    with Team() as team:
        folder = corpora.read([source, other], "key", team, 1, lambda done, total: None)
    docs = {name: facts["docs"] for name, facts in Corpus(folder).facts["domains"].items()}
    assert docs == {"set": 15, "other": 25}, "the 15 are in both"
    assert len(Corpus(folder).parts) == 2 + 4
