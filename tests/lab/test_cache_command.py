"""`lab data cache`: what is in the cache, and a removal that asks first."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab import stored
from lab.__main__ import main
from lablib.data import cache


@pytest.fixture
def filled(home: Path) -> Path:
    """A corpus, and what was seen of it, last used two days ago."""
    for kind in ("corpora", "looks"):
        made = cache.made(kind, "a", lambda to: (to / "x.bin").write_bytes(bytes(5000)) and None)
        os.utime(made / cache.RECORD, (time.time() - 2 * 86400,) * 2)
    return home / "data"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["data", "cache", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_kinds_are_listed_with_their_purpose_size_and_last_use(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    corpora, looks = said(capsys, "--json")
    assert (corpora["kind"], corpora["products"], corpora["intermediate"]) == ("corpora", 1, False)
    assert looks["intermediate"] and looks["bytes"] == looks["own_bytes"] == 5000 + len('{"x.bin": 5000}')
    assert time.time() - looks["used"] == pytest.approx(2 * 86400, abs=60)
    assert main(["data", "cache"]) == 0
    told = capsys.readouterr().out
    assert (
        "texts as they were read" in told
        and "5.01k" in told
        and "2.0 days ago" in told
        and "removes those that nobody uses" in " ".join(told.split())
    )


def test_an_empty_cache_is_said_to_be(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache"]) == 0 and "is empty" in capsys.readouterr().out
    assert said(capsys, "--json") == [] and said(capsys, "--remove", "--yes", "--json")["products"] == {}


def test_nothing_goes_without_a_yes(filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    looks = filled / "looks" / "a"
    for words, why in (
        (["--remove"], "give --yes, or --dry-run"),
        (["--remove", "look", "--yes"], "no kind look; it has corpora, looks"),
        (["--remove", "--yes", "--older-than", "long"], "--older-than 'long'"),
        (["--remove", "--yes", "--older-than=-3d"], "--older-than -3d"),
        (["--yes"], "give --remove with them"),
    ):
        assert main(["data", "cache", *words]) == 2 and why in capsys.readouterr().err
    assert main(["data", "cache", "--remove", "--dry-run"]) == 0
    assert "1 looks would be removed, 5.01k bytes freed" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(stored.console, "input", lambda _: "n")
    assert main(["data", "cache", "--remove"]) == 0 and looks.is_dir()
    assert main(["data", "cache", "--remove", "all", "--older-than", "30d", "--yes"]) == 0
    assert "none were removed, 0 bytes freed; kept: 2 used since" in capsys.readouterr().out and looks.is_dir()
    monkeypatch.setattr(stored.console, "input", lambda _: "y")
    assert main(["data", "cache", "--remove"]) == 0 and not looks.exists() and (filled / "corpora" / "a").is_dir()
    capsys.readouterr()
    assert said(capsys, "--remove", "corpora", "--yes", "--older-than", "1d", "--json")["products"] == {"corpora": 1}  # fmt: skip
