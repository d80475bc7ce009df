"""The local supervisor's warning before the time limit reaches ranks that are born after it, each once."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from cluster import launch
from lablib.runs import jsonl


@pytest.mark.parametrize("polls", [6, 8])
def test_a_rank_that_is_born_late_is_told_too(polls: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clock of whole seconds, a warning 4 before the limit of 6: rank 11 is there from the start, rank 12 from second 5 on,
    and past the limit whoever lives is ended at every look."""
    now, sent = [-1], list[tuple[int, int, signal.Signals]]()

    def poll() -> int | None:
        now[0] += 1
        return None if now[0] < polls else 0

    class Job:
        _process = SimpleNamespace(poll=poll)

    class Executor:
        def __init__(self, folder: Path) -> None:
            pass

        def update_parameters(self, **_: Any) -> None:
            pass

        def submit(self, _: Any) -> Job:
            return Job()

    class Run:
        path, recipe = tmp_path, SimpleNamespace(gpus=2)
        order = SimpleNamespace(profile=SimpleNamespace(time=6, signal_seconds=4))

        @property
        def pulses(self) -> list[Any]:
            born = [11, 12] if now[0] >= 5 else [11]
            return [SimpleNamespace(attempt=0, exit=None, pid=pid) for pid in born]

    monkeypatch.setenv("LAB_ATTEMPT", "0")
    monkeypatch.setattr(submitit, "LocalExecutor", Executor)
    monkeypatch.setattr(launch, "Job", lambda path: None)
    monkeypatch.setattr(launch, "Guard", lambda run: SimpleNamespace(wrong=lambda: ""))
    monkeypatch.setattr(launch.components, "start", lambda run: [])
    monkeypatch.setattr(launch.heartbeat, "alive", lambda pulse: True)
    monkeypatch.setattr(launch.os, "kill", lambda pid, number: sent.append((now[0], pid, number)))
    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: max(0, now[0]), sleep=lambda _: None))
    launch._attempt(Run(), 0)  # type: ignore[arg-type]
    warned = [(3, 11, signal.SIGUSR2), (5, 12, signal.SIGUSR2)]
    ended = [(7, 11, signal.SIGKILL), (7, 12, signal.SIGKILL)] if polls == 8 else []
    assert sent == [*warned, *ended]
    assert [event["kind"] for event in jsonl.events(tmp_path)] == ["overdue"] * (polls == 8)


def test_a_rank_that_ends_as_it_is_told_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the signal."""

    def kill(pid: int, number: signal.Signals) -> None:
        if pid == 11:
            raise ProcessLookupError

    monkeypatch.setenv("LAB_ATTEMPT", "0")
    monkeypatch.setattr(launch.heartbeat, "alive", lambda pulse: True)
    monkeypatch.setattr(launch.os, "kill", kill)
    run: Any = SimpleNamespace(pulses=[SimpleNamespace(attempt=0, exit=None, pid=pid) for pid in (11, 12)])
    assert launch._tell(run, signal.SIGKILL) == {11, 12}
