"""A small folder of text in two domains, and the data that `prepare` makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lablib.data.prepare import prepare
from lablib.runs import Recorder
from lablib.specs import Prepare

TEXT = "the river of numbers 12 345 flows past código naïve 日本 and I'm here; def f(x): return x+1 <|im_end|> <think>"
WORDS = TEXT.split()


def _write_texts(folder: Path, domain: str, count: int, seed: int, longest: int = 400) -> None:
    """`count` documents of between 10 and `longest` words."""
    rng = random.Random(seed)
    (folder / domain).mkdir(parents=True)
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(10, longest))
        (folder / domain / f"{number:03}.txt").write_text(f"{domain} {number}\n" + " ".join(words), encoding="utf-8")


@pytest.fixture
def write_texts() -> Callable[..., None]:
    """``write_texts(folder, domain, count, seed, longest)`` makes documents."""
    return _write_texts


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the domains ``long`` (60 documents) and ``short`` (120)."""
    folder = tmp_path_factory.mktemp("corpus") / "mine"
    _write_texts(folder, "long", 60, 1, 2000)
    _write_texts(folder, "short", 120, 2, 60)
    return folder


@pytest.fixture(scope="session")
def prepared(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Prepare run over `texts`."""
    base = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(base / "home"))
        run = Recorder.create(base / "runs", Prepare(corpus=str(texts), vocab=400, heldout=0.1))
        prepare(run.recipe, run)
    return run.path
