"""Following runs from a thread: it moves while we do nothing, and it ends."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import made
import pytest

import widgets.watching
from lablib.runs import Run
from lablib.specs import LabError
from widgets import show, watch
from widgets.poller import Poller


def until(condition: Any, seconds: float = 180.0) -> bool:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def poller(monkeypatch: pytest.MonkeyPatch) -> Poller:
    """A quick poller in place of the process's own."""
    made_ = Poller(every=0.05)
    monkeypatch.setattr(widgets.watching, "_poller", made_)
    return made_


def test_a_watched_run_moves_by_itself_and_the_thread_ends_with_it(tmp_path: Path, poller: Poller) -> None:
    """The writer writes, nobody calls anything, the snapshot grows; after the end no thread is left."""
    with made.start(tmp_path, made.pretrain()).working() as run:
        board = watch(run.path)
        assert board.screens[0]["frames"].keys() <= {"band", "speed_plan", "memory_plan"}
        made.train(run, 30)
        assert until(lambda: len(board.screens[0]["frames"].get("loss", {}).get("step", [])) == 30)
        assert board.screens[0]["status"]["word"] == "running"
    assert until(lambda: board.screens[0]["status"]["word"] == "completed")
    assert until(lambda: not poller.alive)


def test_one_thread_serves_all_boards(tmp_path: Path, poller: Poller) -> None:
    """Ten screens, one thread."""
    with made.start(tmp_path, made.pretrain()).working() as run:
        boards = [watch(run.path) for _ in range(10)]
        assert sum(thread.name == "lab-watch" for thread in threading.enumerate()) == 1
    assert until(lambda: not poller.alive) and len(boards) == 10


class Counter:
    """Something live that never finishes."""

    def refresh(self) -> bool:
        """Goes on for ever."""
        return True


def test_a_dropped_board_is_forgotten() -> None:
    """The poller holds no reference: what nobody holds dies, and the thread with it."""
    poller, live = Poller(every=0.02), Counter()
    poller.watch(live)
    ghost = weakref.ref(live)
    assert poller.alive
    del live

    def gone() -> bool:
        gc.collect()
        return ghost() is None and not poller.alive

    assert until(gone)


class Broken(Counter):
    """A live thing that raises once."""

    calls = 0

    def refresh(self) -> bool:
        """Fails at the first call."""
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("once")
        return True


def test_one_screens_error_stops_no_other() -> None:
    """A refresh that raises is tried again; the others go on."""
    poller, broken = Poller(every=0.02), Broken()
    poller.watch(broken)
    assert until(lambda: broken.calls >= 3)


def test_an_unreadable_run_says_so_and_is_looked_at_again(tmp_path: Path, poller: Poller) -> None:
    """A folder whose recipe vanishes for a moment does not kill the screen."""
    with made.start(tmp_path, made.pretrain()).working() as run:
        board = watch(Run(run.path))
        recipe = (run.path / "recipe.json").read_text()
        (run.path / "recipe.json").write_text("{")
        assert until(lambda: "cannot be read" in board.screens[0]["subtitle"])
        (run.path / "recipe.json").write_text(recipe)
        assert until(lambda: board.screens[0]["subtitle"].startswith("pretrain"))
    assert until(lambda: not poller.alive)


def test_several_runs_are_tabs_and_nothing_to_watch_is_an_error(chain: list[Run]) -> None:
    """In the order given."""
    board = watch(chain)
    assert [screen["title"] for screen in board.screens] == ["data", "pretrain", "sft", "evaluate", "broken"]
    assert show(board) is board
    with pytest.raises(LabError, match="at least one run"):
        watch([])
    with pytest.raises(LabError, match="no run at"):
        watch("no-such-run")
