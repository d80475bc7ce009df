"""Preparation in parts: the same bytes for any cut, any number of workers and any order of files, and after any kill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.data import cache, corpus, prepare, selection
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, Source, Unreadable, silent
from lablib.data.scale import Job, Team, corpora, pieces
from lablib.data.scale import team as teams
from lablib.data.sources.files import Files
from lablib.runs import Recorder, Run, heartbeat
from lablib.specs import LabError, Prepare, digest


def write_rows(folder: Path, seed: int = 0, files: int = 8, docs: int = 14) -> Path:
    """A folder of two domains with copies inside and across files, near-copies, short and unreadable rows."""
    rng = random.Random(seed)
    vocabulary = [f"w{rng.getrandbits(32):x}" for _ in range(900)]
    texts: list[str] = []
    for number in range(files):
        (folder / f"d{number % 2}").mkdir(parents=True, exist_ok=True)
        rows = []
        for _ in range(docs):
            kind = rng.random()
            if texts and kind < 0.15:
                text = rng.choice(texts)
            elif texts and kind < 0.3:
                text = rng.choice(texts) + " and one more word"
            else:
                text = " ".join(rng.choices(vocabulary, k=rng.randint(20, 300)))
            texts.append(text)
            rows.append(json.dumps({"text": text, "url": f"https://a.example/{number}"}))
        rows += [json.dumps({"text": "short"}), json.dumps({"body": 1})]
        (folder / f"d{number % 2}" / f"{number:02}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "mine")


def recipe(folder: Path, **changes: object) -> Prepare:
    usual = {"corpus": str(folder), "vocab": 300, "heldout": 0.1, "max_bytes": "90 kB", "dedup": {"threshold": 0.8}}
    return Prepare(**{**usual, **changes})  # type: ignore[arg-type]


def made(base: Path, wanted: Prepare, patch: pytest.MonkeyPatch) -> Path:
    """A run in a cache of its own."""
    patch.setenv("LAB_HOME", str(base / "home"))
    run = Recorder.create(base / "runs", wanted)
    prepare.prepare(wanted, run)
    return run.path


def content(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a run's data and tokenizer."""
    files = sorted(file for part in ("data", "tokenizer") for file in (run / part).rglob("*") if file.is_file())
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def uncut(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return made(tmp_path_factory.mktemp("uncut"), recipe(rows), patch)


def dropped(run: Path) -> list[str]:
    return [file.read_text() for file in sorted((run / "dropped").iterdir())]


def test_the_cut_does_not_matter(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, ends, sources, counts, licences, samples and the tokenizer are those of one pass."""
    run = made(tmp_path, recipe(rows, part_bytes="4 kB"), monkeypatch)
    parts = [len(Corpus(folder).parts) for folder in (tmp_path / "home" / "data" / "corpora").iterdir()]
    assert min(parts) > 2 * 8, "it was cut, inside files too"
    assert content(run) == content(uncut)
    assert dropped(run) == dropped(uncut) and dropped(uncut)
    assert not list((tmp_path / "home" / "data" / "pieces").iterdir())
    left = json.loads((run / "data" / "manifest.json").read_text())
    assert all(one["duplicates"] and one["short"] and one["aside"] for one in left["domains"].values()), "nothing vacuous"  # fmt: skip


@pytest.mark.parametrize("tasks", [3, 7])
def test_tasks_do_not_matter(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:  # fmt: skip
    """Helpers may come before the task that gathers, and after it; they own nothing."""
    shared = recipe(rows, part_bytes="25 kB", tasks=tasks)
    runs = {one.task: made(tmp_path, one, monkeypatch) for one in [*shared.shares()[1:-1], shared, shared.shares()[-1]]}
    assert content(runs[0]) == content(uncut)
    assert not any(content(run) or Run.open(run).artefacts for task, run in runs.items() if task)
    assert not list((tmp_path / "home" / "data" / "claims").glob("*")), "every claim was given back"
    with pytest.raises(LabError, match="task=2 must be below tasks=2"):
        recipe(rows, tasks=2, task=2)
    assert shared.science_hash == recipe(rows).science_hash


def test_processes_do_not_matter(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert content(made(tmp_path, recipe(rows, part_bytes="40 kB", threads=2), monkeypatch)) == content(uncut)


def test_every_kind_of_step_in_parts(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules, near-duplicates, repeated text, decontamination with its report, and personal data."""
    (tmp_path / "held.jsonl").write_text(json.dumps({"question": "", "answer": ""}))
    first = next(text for text in map(json.loads, (rows / "d0" / "00.jsonl").read_text().splitlines()) if len(text.get("text", "")) > 300)  # fmt: skip
    (tmp_path / "held.jsonl").write_text(
        json.dumps({"id": "1", "question": first["text"][:200], "answer": "none"}) + "\n"
    )
    steps = {
        "clean": {"preset": "none", "min_words": 40},
        "dedup": {"threshold": 0.8},
        "repeats": {"unit": "passage", "words": 20, "least": 2},
        "decontaminate": {"benchmarks": [str(tmp_path / "held.jsonl")]},
        "scrub": {},
    }
    whole = made(tmp_path / "whole", recipe(rows, **steps), monkeypatch)
    parts = made(tmp_path / "parts", recipe(rows, part_bytes="25 kB", **steps), monkeypatch)
    assert content(whole) == content(parts) and dropped(whole) == dropped(parts)
    reports = [json.loads((run / "contamination" / "report.json").read_text()) for run in (whole, parts)]
    assert reports[0] == reports[1] and reports[0]["coverage"][0]["documents"] > 0
    funnel = json.loads((parts / "data" / "manifest.json").read_text())["funnel"]
    assert len(funnel) == 5 and sum(one["reasons"] != {} for row in funnel for one in row["domains"].values()) >= 4


KILLED = """
import os, signal, sys
from pathlib import Path
from lablib.data import {module} as module
from lablib.data.prepare import prepare
from lablib.runs import Recorder

real, calls = module.{function}, 0
def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
module.{function} = dying
run = Recorder(Path(sys.argv[1]))
prepare(run.recipe, run)
"""


@pytest.mark.parametrize(
    ("module", "function", "kind"), [("corpus", "build", "parts"), ("shards", "tokenise", "pieces")]
)
def test_a_kill_costs_the_part_that_it_hit(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           module: str, function: str, kind: str) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    run = Recorder.create(tmp_path / "runs", recipe(rows, part_bytes="25 kB", tasks=2))
    code = KILLED.format(module=module, function=function)
    assert subprocess.run([sys.executable, "-c", code, str(run.path)], check=False).returncode == -signal.SIGKILL
    kept = {path: path.stat().st_ino for path in (tmp_path / "home" / "data" / kind).glob("[!.]*")}
    assert kept and list((tmp_path / "home" / "data" / "claims").iterdir()), "it held a part when it died"
    begun: list[str] = []
    monkeypatch.setattr(cache, "_sweep", lambda parent: begun.append(parent.name))
    prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    left = {path: path.stat().st_ino for path in kept if path.exists()}
    assert left.items() <= kept.items() and (left == kept or kind == "pieces"), "finished parts were not made again"
    assert content(run.path) == content(uncut)


def test_two_runs_of_the_same_data_do_not_take_each_others_pieces(
    rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is between its pieces and joining them when the other gets ready and drops them."""
    wanted, real = recipe(rows, part_bytes="40 kB"), pieces.join
    other: list[Path] = []

    def late(*args: Any) -> Any:
        if not other:
            other.append(tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)  # another process, with a work folder of its own
                other.append(made(tmp_path, wanted, patch))
            assert not list((tmp_path / "home" / "data" / "pieces").iterdir())
        return real(*args)

    monkeypatch.setattr(pieces, "join", late)
    assert content(made(tmp_path, wanted, monkeypatch)) == content(other[1]) == content(uncut)


@dataclass(frozen=True)
class Listed:
    """A source of given documents, some of which cannot be read, that is cut where it is told to be."""

    found: tuple[Document | Unreadable, ...]
    cuts: tuple[int, ...]
    download_bytes: int = 1

    def parts(self, size: float) -> list[Listed]:
        ends = [0, *sorted(self.cuts), len(self.found)]
        return [Listed(self.found[begin:end], ()) for begin, end in pairwise(ends)]

    def documents(self) -> Iterator[Document | Unreadable]:
        yield from self.found


def one(domain: str, number: int, readable: bool) -> Document | Unreadable:
    if not readable:
        return Unreadable(domain, f"s{number}/x", f"broken [{number}]")
    text = "short" if number == 0 else f"document {number} " * 4
    return Document(
        domain, f"s{number % 3}/x", "MIT" if number % 2 else "BSD", text, synthetic=0.5, generation=number % 4
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_corpus_of_parts_is_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Counts, licences, provenance, hashes, samples and order, for any documents and any cut."""
    drawn = st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9).map(bool))
    found = tuple(one(*each) for each in data.draw(st.lists(drawn, min_size=2, max_size=25)))
    cuts = tuple(data.draw(st.lists(st.integers(0, len(found)), max_size=5)))
    folder = tmp_path / digest([repr(found), repr(cuts)])
    monkeypatch.setenv("LAB_HOME", str(folder / "home"))
    (folder / "plain").mkdir(parents=True, exist_ok=True)
    if not any(isinstance(each, Document) and len(each.text) > 32 for each in found):
        with pytest.raises(LabError, match=r"has no document|nothing in it can be read"):
            corpora.read([Listed(found, cuts)], "key", Team(), 1e-9, silent)  # type: ignore[list-item]
        return
    corpus.build([Listed(found, ())], folder / "plain", silent)  # type: ignore[list-item]
    plain, joined = Corpus(folder / "plain"), Corpus(corpora.read([Listed(found, cuts)], "key", Team(), 1e-9, silent))  # type: ignore[list-item]
    assert joined.facts == plain.facts and joined.domains == plain.domains
    for domain in plain.domains:
        assert list(joined.documents(domain)) == list(plain.documents(domain))
        assert (joined.index(domain) == plain.index(domain)).all()
    samples = [one.folder / "dropped.jsonl" for one in (plain, joined)]
    assert [file.is_file() and file.read_text() for file in samples] == [
        samples[0].is_file() and samples[0].read_text()
    ] * 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(40, 400), min_size=1, max_size=30, unique=True), st.integers(1, 6000))
def test_a_cap_takes_what_it_took_document_by_document(tmp_path: Path, sizes: list[int], cap: int) -> None:
    """Against the definition: in order of priority while there is room, and at least one."""
    folder = tmp_path / digest([sizes, cap])
    folder.mkdir(exist_ok=True)
    corpus.build([Listed(tuple(Document("d", "s", "MIT", "x" * size) for size in sizes), ())], folder)  # type: ignore[list-item]
    names = {hashlib.sha256(b"x" * size).hexdigest(): size for size in sizes}
    expected: set[str] = set()
    for name in sorted(names, key=selection.priority):
        if expected and sum(names[one] for one in expected) + names[name] > cap:
            break
        expected.add(name)
    chosen = selection.select(Corpus(folder), "d", cap)
    assert (set(names) if chosen is None else chosen) == expected


def test_a_part_of_another_cut_is_not_taken(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first part of one cut, continued with another cut of as many parts."""
    (tmp_path / "mine").mkdir()
    for number in range(4):
        (tmp_path / "mine" / f"{number}.txt").write_text(f"document {number} " * 50)
    source = Files(tmp_path / "mine")
    size = source.files()[0].stat().st_size
    cuts = [[len(part.files()) for part in source.parts(times * size)] for times in (2, 3)]
    assert cuts == [[2, 2], [3, 1]]
    real, made = corpus.build, list[Path]()

    def dying(sources: Sequence[Source], folder: Path, report: Report, part: bool) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(folder)
        real(sources, folder, report, part)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(corpus, "build", dying)
        corpora.read([source], "key", Team(), 2 * size, silent)
    assert made
    assert Corpus(corpora.read([source], "key", Team(), 3 * size, silent)).facts["domains"]["mine"]["docs"] == 4


def slowly(folder: Path, report: object, log: list[str], name: str) -> None:
    log.append(name)
    time.sleep(0.02)


def test_two_workers_make_each_product_once(home: Path) -> None:
    log: list[str] = []
    jobs = [Job("test", f"{number}", slowly, (log, f"{number}")) for number in range(12)]
    workers = [threading.Thread(target=Team(tasks=2, task=task).each, args=(jobs,)) for task in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(log, key=int) == [str(number) for number in range(12)] and all(job.folder.is_dir() for job in jobs)


@pytest.mark.parametrize("dead", [True, False])
def test_a_claim_of_a_dead_or_silent_worker_is_void(home: Path, monkeypatch: pytest.MonkeyPatch, dead: bool) -> None:
    """At once where its process is gone from this machine; elsewhere after a time without a sign of life."""
    log: list[str] = []
    pulse = heartbeat.Pulse.mine(0, "claim")
    pulse = replace(pulse, born="1") if dead else replace(pulse, host="elsewhere")
    if not dead:
        monkeypatch.setattr(heartbeat, "STALE", 0.5)
    file = home / "data" / "claims" / "test-1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(pulse)))
    begun = time.monotonic()
    Team(tasks=2).one(Job("test", "1", slowly, (log, "1")))
    assert log == ["1"] and not file.exists()
    assert dead or time.monotonic() - begun > 0.5


def test_processes_see_that_a_claim_is_silent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The observation lasts from look to look; threads stand in for the pool's processes."""
    monkeypatch.setattr(heartbeat, "STALE", 0.3)
    log: list[str] = []
    file = home / "data" / "claims" / "test-1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(replace(heartbeat.Pulse.mine(0, "claim"), host="elsewhere"))))
    begun = time.monotonic()

    def told(done: float, total: float) -> None:
        assert time.monotonic() - begun < 5, "it waits for ever"

    team = Team(threads=2, tasks=2)
    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(team, "_pool", pool)
        team.each([Job("test", name, slowly, (log, name)) for name in "12"], told)
    assert log == ["2", "1"] and not list(file.parent.iterdir())


def test_a_worker_that_shows_life_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALE", 0.6)
    monkeypatch.setattr(teams, "BEAT", 0.1)
    log: list[str] = []

    def long(folder: Path, report: object) -> None:
        log.append("made")
        time.sleep(2)

    job = Job("test", "1", long)
    workers = [threading.Thread(target=Team(tasks=2, task=task).one, args=(job,)) for task in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert log == ["made"]


def test_the_order_of_files_moves_no_hash(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files under shuffled names: the same corpus, near-duplicates, cap and tokenizer, and the same documents in each split."""
    files = sorted(rows.rglob("*.jsonl"))
    names = [file.name for file in files]
    random.Random(5).shuffle(names)
    for file, name in zip(files, names, strict=True):
        (tmp_path / "mine" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "mine" / file.parent.name / name)
    one = made(tmp_path / "one", recipe(rows, part_bytes="25 kB"), monkeypatch)
    other = made(tmp_path / "other", recipe(tmp_path / "mine", part_bytes="40 kB"), monkeypatch)
    cards = [json.loads((run / "data" / "manifest.json").read_text()) for run in (one, other)]
    assert cards[0]["corpus"]["hash"] == cards[1]["corpus"]["hash"]
    assert cards[0]["tokenizer"]["sha256"] == cards[1]["tokenizer"]["sha256"]
    counts = [[(row["domain"], row["split"], row["docs"], row["bytes"], row["tokens"]) for row in card["shards"]] for card in cards]  # fmt: skip
    assert counts[0] == counts[1]
    ids = [np.sort(np.fromfile(run / "data" / "shards" / "d0.train.bin", "<u2")) for run in (one, other)]
    assert (ids[0] == ids[1]).all()
