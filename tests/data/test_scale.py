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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.data import cache, corpus, prepare, selection
from lablib.data.corpus import Corpus
from lablib.data.documents import silent
from lablib.data.scale import Job, Team, corpora
from lablib.data.scale import team as teams
from lablib.data.sources.files import Files
from lablib.runs import Recorder, Run, heartbeat
from lablib.specs import LabError, Prepare, digest


def write_rows(folder: Path, seed: int = 0, files: int = 8, docs: int = 24) -> Path:
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
    usual = {"corpus": str(folder), "vocab": 300, "heldout": 0.1, "max_bytes": "150 kB", "dedup": {"threshold": 0.8}}
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


@pytest.mark.parametrize("part", ["1 B", "40 kB"])
def test_the_cut_does_not_matter(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:  # fmt: skip
    """Ids, ends, sources, counts, licences, samples and the tokenizer are those of one pass."""
    run = made(tmp_path, recipe(rows, part_bytes=part), monkeypatch)
    parts = [len(Corpus(folder).parts) for folder in (tmp_path / "home" / "data" / "corpora").iterdir()]
    assert min(parts) > 2, "it was cut"
    assert content(run) == content(uncut)
    assert dropped(run) == dropped(uncut) and dropped(uncut)
    assert not list((tmp_path / "home" / "data" / "pieces").iterdir())
    left = json.loads((run / "data" / "manifest.json").read_text())
    assert all(one["duplicates"] and one["short"] and one["aside"] for one in left["domains"].values()), "nothing vacuous"  # fmt: skip


def test_processes_do_not_matter(rows: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert content(made(tmp_path, recipe(rows, part_bytes="60 kB", threads=2), monkeypatch)) == content(uncut)
