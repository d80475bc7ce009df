"""Damaged products: each kind cut short, emptied or robbed of files on a real disk is made again, and the data are the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lablib.data import cache, prepare
from lablib.data.corpus import Corpus
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Prepare

KINDS = ("sums", "parts", "corpora", "signals", "signatures", "verdicts", "looks", "known", "edits", "equal",
         "decontamination", "indexes", "samples", "tokenizers", "encoders", "pieces", "shards")  # fmt: skip


def texts(folder: Path) -> Path:
    """Two files of documents with near-copies, repeated passages, e-mail addresses and a benchmark's item."""
    rng, folder = random.Random(1), folder / "mine"
    folder.mkdir()
    words = [f"w{rng.getrandbits(32):x}" for _ in range(300)]
    passage = " ".join(words[:30])
    for number in range(2):
        made = [" ".join(rng.choices(words, k=rng.randint(50, 120))) + f" p{number}@example.org" for _ in range(10)]
        made += [made[0] + " and one more", *(f"{text} {passage}" for text in made[1:4])]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in made))
    (folder.parent / "held.jsonl").write_text(
        json.dumps({"id": "1", "question": made[5][:200], "answer": "none"}) + "\n"
    )
    return folder


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    base = tmp_path_factory.mktemp("damage")
    steps: dict[str, Any] = {
        "clean": {"preset": "none", "min_words": 40},
        "dedup": {"threshold": 0.8},
        "repeats": {"unit": "passage", "words": 20, "least": 2},
        "decontaminate": {"benchmarks": [str(base / "held.jsonl")]},
        "scrub": {},
    }
    return Prepare(corpus=str(texts(base)), vocab=280, heldout=0.1, part_bytes="8 kB", tasks=2, **steps)


def made(base: Path, recipe: Prepare, patch: pytest.MonkeyPatch) -> Path:
    patch.setenv("LAB_HOME", str(base / "home"))
    run = Recorder.create(base / "runs", recipe)
    prepare.prepare(recipe, run)
    return run.path


@pytest.fixture(scope="module")
def full(wanted: Prepare, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a run, a home that holds products of every kind)."""
    base = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        made(base, wanted.shares()[1], patch)
        shutil.copytree(base / "home" / "data" / "pieces", base / "pieces")
        run = made(base, wanted, patch)
    shutil.rmtree(base / "home" / "data" / "pieces")
    (base / "pieces").rename(base / "home" / "data" / "pieces")
    assert set(KINDS) <= {path.name for path in (base / "home" / "data").iterdir()}
    return run, base / "home"


def content(run: Path) -> dict[str, bytes]:
    files = (file for part in ("data", "tokenizer") for file in (run / part).rglob("*") if file.is_file())
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def cut(product: Path) -> None:
    """Every file at half its length, as on a disk that was full or lost power."""
    for file in product.rglob("*"):
        if file.is_file() and file.name != cache.RECORD:
            with file.open("r+b") as stream:
                stream.truncate(file.stat().st_size // 2)


def purged(product: Path) -> None:
    """No file at all, as where old files are purged one by one."""
    for file in product.rglob("*"):
        if file.is_file():
            file.unlink()


def robbed(product: Path) -> None:
    """One file is gone."""
    sorted(file for file in product.rglob("*") if file.is_file() and file.name != cache.RECORD)[-1].unlink()


def unlisted(product: Path) -> None:
    """The list of files is cut short."""
    file = product / cache.RECORD
    file.write_text(file.read_text()[:5])


@pytest.mark.parametrize("harms", [(cut,), (purged,), (robbed, unlisted)], ids=["cut", "purged", "robbed"])
def test_damage_of_every_kind_is_told_and_made_good(
    full: tuple[Path, Path],
    wanted: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harms: tuple[Callable[[Path], None], ...],
) -> None:
    """Every product is damaged, so that whoever asks for one comes across it."""
    run, home = full
    shutil.copytree(home / "data", tmp_path / "home" / "data", ignore=shutil.ignore_patterns("users", "claims"))
    for number, product in enumerate(sorted((tmp_path / "home" / "data").glob("*/[!.]*"))):
        harms[number % len(harms)](product)
    again = made(tmp_path, wanted, monkeypatch)
    assert content(again) == content(run)
    told = [row["text"].partition(" is damaged")[0] for row in Run(again).events() if row["kind"] == "warning"]
    assert {Path(product).parent.name for product in told} == set(KINDS)


def test_a_whole_cache_is_not_called_damaged(
    full: tuple[Path, Path], wanted: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one of an earlier version, which lists no files."""
    run, home = full
    shutil.copytree(home / "data", tmp_path / "home" / "data", ignore=shutil.ignore_patterns(cache.RECORD))
    for again in (made(home.parent, wanted, monkeypatch), made(tmp_path, wanted, monkeypatch)):
        assert content(again) == content(run)
        assert not [row for row in Run(again).events() if row["kind"] == "warning"]
        assert not list(again.rglob(cache.RECORD)), "a run has the data alone"


@pytest.mark.parametrize("harm", [cut, shutil.rmtree])
def test_what_is_lost_while_it_is_read_is_made_again(
    full: tuple[Path, Path],
    wanted: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
) -> None:
    """Planted: the corpora are harmed after the run has found them whole, once."""
    shutil.copytree(full[1] / "data" / "corpora", tmp_path / "home" / "data" / "corpora")
    real, calls = prepare._check_mixture, list[int]()

    def harming(recipe: Prepare, built: Corpus) -> None:
        real(recipe, built)
        calls.append(len(calls))
        if len(calls) == 1:
            harm(built.folder)

    monkeypatch.setattr(prepare, "_check_mixture", harming)
    again = made(tmp_path, wanted, monkeypatch)
    assert content(again) == content(full[0]) and len(calls) == 2
    said = " ".join(row["text"] for row in Run(again).events() if row["kind"] == "warning")
    assert "making it again" in said and ("is damaged" in said) == (harm is cut)


def test_an_error_over_whole_products_stays_what_it_is(
    full: tuple[Path, Path], wanted: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(*_: object) -> None:
        calls.append(1)
        raise ValueError("planted")

    monkeypatch.setattr(prepare, "_check_mixture", failing)
    with pytest.raises(ValueError, match="planted"):
        made(full[1].parent, wanted, monkeypatch)
    assert calls == [1]


def test_a_damaged_product_of_somebody_else_is_a_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a shared cache: what cannot be moved cannot be made again either."""
    product = cache.made("corpora", "a", lambda to: (to / "text").write_text("whole") and None)
    (product / "text").write_text("cut")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "moved", refused)
    with (
        pytest.warns(UserWarning, match="text has 3 bytes of 5"),
        pytest.raises(LabError, match="have its owner remove it"),
    ):
        cache.has("corpora", "a")
