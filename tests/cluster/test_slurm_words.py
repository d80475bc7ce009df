"""What Slurm prints, read as text; samples as versions 22.05 and 23.11 print them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.settle import Attempt, decide, made_progress
from cluster.slurm import query
from lablib.runs import Run, jsonl
from lablib.runs.state import HOPELESS, STOPPED
from lablib.specs import Prepare


def test_a_queue_with_reasons_of_several_words_and_suffixes() -> None:
    found = query.parse_queue(
        "12|PENDING|Nodes required for job are DOWN, DRAINED|None|2026-11-24T08:00:00|/x\n"
        "13_2|RUNNING|None|lab[1-2]|2026-11-24T08:00:00|/x\n14|CANCELLED by 0|None|lab1|N/A|/x\n\nhalf|a line"
    )
    assert set(found) == {"12", "13_2", "14"}
    assert found["12"].reason == "Nodes required for job are DOWN, DRAINED" and found["12"].pending
    assert (found["13_2"].reason, found["13_2"].nodes, found["13_2"].final) == ("", "lab[1-2]", False)
    assert found["14"].state == "CANCELLED" and found["14"].final and found["14"].start == ""


def test_accounting_where_only_a_step_knows_why() -> None:
    found = query.parse_accounts(
        "7|FAILED|1:0|lab1|t\n7.batch|FAILED|1:0|lab1|t\n7.0|OUT_OF_MEMORY|0:125|lab1|t\n"
        "8|FAILED|1:0|lab1|t\n8.0|CANCELLED|0:9|lab1|t\n9|CANCELLED by 0|0:0|None assigned|t\n"
    )
    assert found["7"].state == "OUT_OF_MEMORY" and "step 0" in found["7"].reason
    assert (found["8"].state, found["8"].exit) == ("FAILED", "0:9")
    assert (found["9"].state, found["9"].nodes) == ("CANCELLED", "")


def test_restarts_of_jobs_and_of_array_tasks() -> None:
    text = "JobId=5 JobName=a Restarts=2 BatchFlag=1\nJobId=7 ArrayJobId=6 ArrayTaskId=3 Restarts=1\nJobId=8 ArrayJobId=8 ArrayTaskId=1-4%2 Restarts=0"
    assert query.parse_restarts(text) == {"5": 2, "6_3": 1, "8": 0}


codes = st.lists(st.sampled_from([None, 0, 1, 9, STOPPED, HOPELESS]), max_size=4).map(tuple)


@given(codes, st.sampled_from(["", "asked", "limit", "signal", "budget", "hang"]), st.booleans(), st.integers(0, 5), st.integers(0, 4), st.booleans(), st.booleans())  # fmt: skip
def test_the_rule_of_survival(
    codes: tuple[int | None, ...], why: str, progressed: bool, failures: int, retries: int, asked: bool, taken: bool
) -> None:
    found = decide(Attempt(codes, why, progressed, failures), retries, asked, taken).outcome
    assert (found == "completed") == (bool(codes) and set(codes) == {0})
    if found == "again":
        assert not asked and not taken, "neither a person's word nor Slurm's is overruled"
        assert HOPELESS not in codes and (progressed or failures < retries), "attempts end"
    if taken and not asked and found != "completed":
        assert found in ("released", "stopped")


def test_a_run_that_went_back_from_a_spike_makes_progress_from_there() -> None:
    saved = [{"kind": "checkpoint", "at_step": step} for step in (100, 200)]
    back = {"kind": "rewound", "to_step": 100}
    first = [{"kind": "started", "attempt": 0}, *saved]
    second = {"kind": "started", "attempt": 1}
    again = {"kind": "checkpoint", "at_step": 150}
    assert made_progress([*first, back], 0) and made_progress([*first, second, back], 1)
    assert made_progress([*first, back, second, again], 1)
    assert not made_progress([*first, second, again], 1)


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(60, 900))
def test_the_end_of_a_file_is_the_end_of_the_whole(numbers: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        for number in numbers:
            jsonl.append(file, {"step": number})
        whole, end = jsonl.read(file), jsonl.last(file, size)
        assert end == whole[len(whole) - len(end) :]
        assert len(end) >= min(len(whole), size // 25 - 1)


def test_runs_made_in_the_same_second_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("lablib.runs.run.secrets.token_hex", lambda _: next(digits))
    monkeypatch.setattr("lablib.runs.run.time.strftime", lambda _: "20261124-000000")
    first, second = (Run.create(Prepare(vocab=512), tmp_path) for _ in range(2))
    assert first.path != second.path
