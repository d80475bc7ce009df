"""What goes wrong around a run: refused and interrupted submissions, two people at once, other people's jobs, odd folders."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cluster import child, control, guard, health, jobs, preflight, resume, settle, submit, submit_all
from cluster.slurm import query
from lablib.runs import Run, RunState, jsonl, orders
from lablib.runs.orders import Order, Record, View
from lablib.specs import SFT, Cluster, Component, LabError, ModelSpec, Parallelism, Prepare, Pretrain, Profile, variants

if TYPE_CHECKING:
    from cluster.dev import DevSlurm

TINY = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)


@pytest.fixture
def corpus(tmp_path: Path, home: Path, runs: Path) -> Path:
    """A small folder of real text: this test suite's own sources."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))[:20]):
        (folder / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture
def failed(tmp_path: Path, home: Path, runs: Path) -> Run:
    """A run that failed: its corpus holds no text."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "row.jsonl").write_text(json.dumps({"text": 1}))
    run = submit(Prepare(corpus=str(empty), vocab=512, heldout=0.1))
    assert run.wait() is RunState.FAILED
    return run


def files(run: Run) -> dict[str, bytes]:
    told = ("scheduler.json", "settled.json", "order.json", "heartbeat")
    return {str(file.relative_to(run.path)): file.read_bytes() for name in told for file in [run.path / name, *(run.path / name).glob("*")] if file.is_file()}  # fmt: skip


@pytest.mark.parametrize("error", [LabError("no"), KeyboardInterrupt()])
def test_a_run_whose_resumption_is_refused_is_as_it_was(
    failed: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refuse(*_: object) -> None:
        raise error

    before = files(failed)
    with monkeypatch.context() as patch:
        patch.setattr(control, "start", refuse)
        with pytest.raises(type(error)):
            resume(failed)
    assert files(failed) == before and failed.state is RunState.FAILED
    assert resume(failed).wait() is RunState.FAILED, "it can be resumed after that"


def test_two_people_do_not_resume_one_run(failed: Run) -> None:
    with control._alone(failed), pytest.raises(LabError, match="resumed already"):
        resume(failed)
    assert resume(failed).wait() is RunState.FAILED


def test_an_interrupt_waits_for_what_was_begun(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = f"import os, pathlib, time; time.sleep(0.5); os.kill({os.getpid()}, 2); time.sleep(1); pathlib.Path({str(done)!r}).touch()"
    with pytest.raises(KeyboardInterrupt):
        child.finish([sys.executable, "-c", code], dict(os.environ))
    assert done.exists()
    assert child.finish([sys.executable, "-c", "import sys; sys.exit(sys.stdin.read())"], dict(os.environ), "no") == (
        1,
        "no\n",
    )


def test_a_submission_that_is_interrupted_leaves_no_run_behind(
    corpus: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cluster.submission

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.submission, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        submit(Prepare(corpus=str(corpus), vocab=512))
    assert not list(runs.glob("*/recipe.json"))


def test_a_folder_of_runs_behind_a_link_works(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    run = submit(Prepare(corpus=str(corpus), vocab=512, heldout=0.1), root=tmp_path / "link")
    assert run.wait() is RunState.COMPLETED, run.failure


def test_local_runs_take_turns_where_the_cores_are_few(
    corpus: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert preflight.bears([Prepare(threads=1)]) == 2 and preflight.bears([Prepare(threads=8)]) == 1
    made = submit_all(variants(Prepare(corpus=str(corpus), heldout=0.1), {"vocab": [300, 310, 320]}))
    assert [run.order.behind for run in made] == ["", "", made[0].id]
    assert [run.wait() for run in made] == [RunState.COMPLETED] * 3


def test_one_bad_folder_is_a_row_of_the_board(corpus: Path, runs: Path) -> None:
    good = submit(Prepare(corpus=str(corpus), vocab=512, heldout=0.1))
    assert good.wait() is RunState.COMPLETED
    spoilt = {"order.json": "{", "cluster.json": "[]", "estimate.json": "{}", "events.jsonl": "{}\n", "scheduler.json": "null", "recipe.json": "{}"}  # fmt: skip
    for name, text in spoilt.items():
        one = Run.create(Prepare(name=name.partition(".")[0]), runs)
        (one.path / name).write_text(text)
    board = jobs(runs).set_index("run")
    assert len(board) == 1 + len(spoilt) and board.loc[good.id, "state"] == "completed"


def attempts(run: Run) -> list[tuple[int, str]]:
    return [(event["attempt"], event["outcome"]) for event in run.events() if event["kind"] == "attempt"]


def test_attempts_that_their_nodes_took_along_count_against_the_retries(runs: Path) -> None:
    """Two attempts begin and are never heard of again; with one retry the third does not begin."""
    profile = Profile.load("slurm-dev").replace(retries=1)
    run = Run.create(Prepare(), runs, order=json.loads(orders.Order(profile=profile).to_json()))
    assert settle.settle_lost(run, 0), "nothing came before"
    for number, goes_on in ((0, True), (1, False)):
        jsonl.event(run.path, "started", attempt=number)
        assert settle.settle_lost(run, number + 1) is goes_on
        assert settle.settle_lost(run, number + 1) or not goes_on
    assert attempts(run) == [(0, "again"), (1, "failed")] and (run.path / "settled.json").is_file()


def test_a_node_that_is_found_bad_before_rank_zero_has_said_a_word_is_kept_away_from(runs: Path) -> None:
    run = Run.create(Prepare(), runs, order=json.loads(orders.Order(profile=Profile.load("slurm-dev")).to_json()))
    jsonl.event(run.path, "unwell", node="n1", reasons=["a GPU fell off"], attempt=0)
    jsonl.event(run.path, "started", attempt=0)
    found = settle.settle(run, 0)
    assert (found.outcome, found.reason) == ("again", "a node is not well")
    assert run.order.exclude == ("n1",)


def test_a_number_that_slurm_uses_again_is_a_strangers(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(Prepare(), runs)
    held = Record(system="slurm", job_id="26", logs=str(run.path / "logs"), submitted=time.time() - 3600)
    (run.path / "scheduler.json").write_text(held.to_json())
    asked: list[tuple[str, ...]] = []

    def told(name: str) -> None:
        def answer(*words: str, **_: object) -> str:
            asked.append(words)
            return f"26|RUNNING|None|lab1|2026-11-26T10:00:00|{name}\n" if words[0] == "squeue" else ""

        query.forget()
        monkeypatch.setattr(query, "command", answer)

    told(run.id)
    assert run.view is not None and run.view.state == "RUNNING"
    query.check_ours(run.path, held)
    told("somebody|s job")
    with pytest.raises(LabError, match=r"job 26 is 'somebody\|s job' now"):
        control.stop(run, now=True)
    assert run.view is not None and run.view.state == orders.UNKNOWN
    assert not [words for words in asked if words[0] == "scancel"]
    array = held.replace(logs=str(runs / query.ARRAYS / "sweep-1"))
    assert query.name_of(run.path, array) == "sweep-1"
    query.forget()


def test_what_has_ended_is_not_asked_about_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(Prepare(), runs)
    held = Record(system="slurm", job_id="31", logs=str(run.path / "logs"))
    (run.path / "scheduler.json").write_text(held.to_json())
    (run.path / "view.json").write_text(View(state="CANCELLED").to_json())
    asked: list[str] = []

    def answer(*words: str, **_: object) -> str:
        asked.append(words[0])
        return ""

    query.forget()
    monkeypatch.setattr(query, "command", answer)
    for _ in range(5):
        assert run.view is not None and run.view.state == "CANCELLED"
    assert asked == ["squeue"]
    query.forget()


def test_a_job_that_would_hold_nodes_for_a_local_run_is_refused(runs: Path) -> None:
    before = Run.create(Prepare(), runs)
    order = orders.Order(profile=Profile.load("slurm-dev"), after=(before.id,))
    after = Run.create(
        Pretrain(model="qwen3-0.6b", tokens="1B", parallelism=Parallelism()), runs, order=json.loads(order.to_json())
    )
    with pytest.raises(LabError, match="would hold its nodes"):
        control.start([after], 0)


def test_a_node_is_judged_by_what_it_shows() -> None:
    eight = Cluster(accelerator="h100-sxm")
    good = {"device": "cuda", "tflops": 600.0, "all_reduce_gb_s": 60.0}
    assert health._failings(good, eight, 8) == []
    assert health._failings({**good, "all_reduce_gb_s": 0.0}, eight, 8) == ["an all-reduce gave a wrong sum"]
    (slow,) = health._failings({**good, "all_reduce_gb_s": 0.3}, eight, 8)
    assert "0.3 GB/s" in slow
    (cold,) = health._failings({"device": "cuda", "tflops": 100.0}, eight, 1)
    assert "100 TFLOP/s" in cold
    assert health._failings({"device": "cpu", "tflops": 0.01, "all_reduce_gb_s": 0.01}, None, 4) == []


def test_what_cannot_begin_is_refused_before_it_queues(corpus: Path, runs: Path, slurm: DevSlurm) -> None:
    where = Profile.load("slurm-dev")
    with pytest.raises(LabError, match="nor a folder, file or pattern of files here"):
        submit(Pretrain(model="qwen3-0.6b", data="/nonexistent/x", tokens="1M", precision="fp32"), where)
    with pytest.raises(LabError, match="is not a file here"):
        submit(SFT(model="smollm2-135m-instruct", data="rows.jsonl"), where)
    with pytest.raises(LabError, match=r"takes 4 × 64 CPUs a node, and partition gpu's nodes have 8"):
        submit(Prepare(corpus=str(corpus), parallelism=Parallelism(dp_shard=4)), where.replace(cpus_per_gpu=64))
    data = submit(Prepare(corpus=str(corpus), vocab=512, heldout=0.1))
    assert data.wait() is RunState.COMPLETED, data.failure
    with pytest.raises(LabError, match="has completed without it; it made"):
        submit(
            Pretrain(model=TINY, data=data.ref("nothing"), tokens="1M", seq_len=64, batch_tokens=256, precision="fp32")
        )
    with pytest.raises(LabError, match="precision='mxfp8': the trainer does not do this yet"):
        submit(Pretrain(model=TINY, data=data.data, tokens="1M", seq_len=64, batch_tokens=256, precision="mxfp8"))
    assert [file.parent.name for file in runs.glob("*/recipe.json")] == [data.id]


def test_what_a_step_told_is_not_forgotten_while_the_queue_says_failed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(Prepare(), runs)
    held = Record(system="slurm", job_id="7", logs=str(run.path / "logs"))
    (run.path / "scheduler.json").write_text(held.to_json())
    said = {
        "squeue": f"7|FAILED|NonZeroExitCode|lab1|2026-11-26T10:00:00|{run.id}\n",
        "sacct": "7|FAILED|1:0|lab1|2026-11-26T10:00:00\n7.0|OUT_OF_MEMORY|0:125|lab1|2026-11-26T10:00:00\n",
    }
    asked: list[str] = []

    def answer(*words: str, **_: object) -> str:
        asked.append(words[0])
        return said.get(words[0], "")

    query.forget()
    monkeypatch.setattr(query, "command", answer)
    for _ in range(3):
        assert run.view is not None and run.view.state == "OUT_OF_MEMORY"
    assert asked.count("sacct") == 1
    query.forget()


def test_ranks_are_told_on_time_and_ended_in_time_and_longer_where_the_limit_was_lengthened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, end = [0.0], [60.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(query, "seconds_left", lambda job: end[0] - now[0])
    limit = guard.Deadline("7", 30)
    assert (limit.seconds, limit.warns(), limit.passed()) == (30.0, False, "")
    now[0] = 30.0
    assert limit.warns() and not limit.warns() and not limit.passed()
    now[0] = 45.0
    assert limit.passed() == "overdue"
    now[0] = 29.0
    longer = guard.Deadline("7", 30)
    now[0], end[0] = 30.0, 120.0
    assert not longer.warns()
    now[0] = 91.0
    assert longer.warns()
    monkeypatch.setattr(query, "seconds_left", lambda job: math.inf)
    assert guard.Deadline("7", 30).seconds == math.inf


def test_ranks_are_told_on_time_though_slurm_did_not_answer_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], [""]

    def squeue(*words: str, **_: object) -> str:
        if not said[0]:
            raise LabError("squeue: Socket timed out")
        return said[0]

    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(query, "command", squeue)
    limit = guard.Deadline("7", 30)
    assert limit.seconds == guard.UNANSWERED and not limit.warns()
    now[0], said[0] = 10.0, "0:50"
    assert not limit.warns() and limit.seconds == 20.0
    now[0], said[0] = 31.0, ""
    assert limit.warns(), "what Slurm said before holds while it does not answer"
    now[0], said[0] = 40.0, "UNLIMITED"
    assert not limit.passed() and limit.seconds == math.inf


def test_a_guard_goes_on_where_slurm_and_the_filesystem_do_not(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller restarts when ranks are to be told, the folder cannot be read at first, and the disk is full at the end."""
    run = Run.create(Prepare(), runs)
    Order(profile=Profile(hang=1000.0, signal_seconds=30)).save(run.path / "order.json")
    now, sent, look = [0.0], list[tuple[float, str]](), guard.Guard.hung

    class Over(Exception):
        """The test has seen enough."""

    def scancel(words: list[str], check: bool) -> Any:
        sent.append((now[0], words[1].removeprefix("--signal=")))
        if len(sent) == 4:
            raise Over
        return SimpleNamespace(returncode=int(len(sent) == 1))

    def stale(self: guard.Guard) -> bool:
        if now[0] < 20:
            raise OSError(errno.ESTALE, "stale file handle")
        return look(self)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(guard.subprocess, "run", scancel)
    monkeypatch.setattr(guard.Guard, "hung", stale)
    monkeypatch.setattr(guard.jsonl, "event", full)
    monkeypatch.setattr(query, "seconds_left", lambda job: 100.0 - now[0])
    with pytest.raises(Over):
        guard.main(str(run.path), "7")
    assert sent == [(70, "USR2"), (80, "USR2"), (85, "KILL"), (95, "KILL")]
    patience = guard.Guard(run, lambda: now[0])
    now[0] += 2000
    assert patience.wrong() == "hang"


def test_a_servers_node_is_paid_for_like_the_ranks() -> None:
    server = Component(name="judge", command=("true",), nodes=1)
    order = orders.Order(profile=Profile.load("slurm-dev").replace(gpus_per_node=4), components=(server,))
    assert [order.gpus(ranks) for ranks in (2, 4, 8)] == [4, 8, 12] and order.nodes(8) == 3
    assert order.replace(components=()).gpus(8) == 8 and orders.Order().gpus(2) == 2
