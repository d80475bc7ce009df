"""Local submission with real processes: it outlives whoever submitted it, chains, stops, dies and resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import jobs, resume, stop, submission, submit, submit_all
from cluster.remote import serve
from lablib.runs import Run, RunState
from lablib.specs import LabError, ModelSpec, Parallelism, Prepare, Pretrain


def until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def corpus(tmp_path: Path, home: Path, runs: Path) -> Path:
    """A small folder of real text: this test suite's own sources."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))):
        (folder / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def prepare(corpus: Path, **changes: object) -> Prepare:
    return Prepare(corpus=str(corpus), vocab=512, heldout=0.1, **changes)


def test_submit_returns_a_run_that_works_by_itself(corpus: Path) -> None:
    run = submit(prepare(corpus))
    assert run.wait() is RunState.COMPLETED, run.failure
    assert {"tokenizer", "data"} <= set(run.artefacts)
    assert "Run.open" in repr(run)
    assert Run.open(run.id).recipe == prepare(corpus)
    assert list(jobs()["state"]) == ["completed"]


def test_the_job_survives_the_death_of_its_submitters_whole_process_group(corpus: Path, runs: Path) -> None:
    code = f"""
import time
from cluster import submit
from lablib.specs import Prepare
print(submit(Prepare(corpus={str(corpus)!r}, vocab=512, heldout=0.1)).id, flush=True)
time.sleep(60)
"""
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert kernel.stdout is not None
    run = Run.open(kernel.stdout.readline().strip())
    os.killpg(kernel.pid, signal.SIGINT)
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    assert run.wait() is RunState.COMPLETED, run.failure


def test_the_jobs_environment_has_its_threads_and_nothing_of_a_foreign_job(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet,mask_cpu:0x1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("WORLD_SIZE", "8")
    blocker = Run.create(prepare(corpus), tmp_path / "runs")  # so that the process is there as long as it is looked at
    run = submit(prepare(corpus, threads=2), after=blocker)
    until(lambda: bool(run.pulses))
    environment = Path(f"/proc/{run.pulses[0].pid}/environ").read_bytes().decode()
    assert "SLURM_CPU_BIND" not in environment and "OMP_NUM_THREADS=2" in environment
    stop(run)
    assert run.wait() is RunState.STOPPED


def test_two_ranks_wait_for_the_run_they_refer_to_and_freeze_what_they_got(corpus: Path) -> None:
    data = submit(prepare(corpus))
    recipe = Pretrain(
        model=ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512),
        data=data.data,
        tokens=3 * 256,
        seq_len=64,
        batch_tokens=256,
        precision="fp32",
        parallelism=Parallelism(dp_shard=2, micro_batch_size=2),
    )
    run = submit(recipe)
    assert run.wait() is RunState.COMPLETED, run.failure
    assert [pulse.rank for pulse in run.pulses] == [0, 1] and len(run.rows()) == 3
    assert run.manifest["inputs"][str(data.data)] == data.artefacts["data"].sha256
    began = next(event["time"] for event in run.events() if event["kind"] == "artefact")
    assert began >= next(event["time"] for event in data.events() if event["kind"] == "completed")


def test_what_depends_on_a_failed_run_fails_with_the_reason_and_both_can_be_resumed(
    corpus: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "later"
    missing.mkdir()
    (missing / "row.jsonl").write_text('{"text": 1}')  # a corpus without text
    first = submit(prepare(missing))
    second = submit(prepare(corpus), after=first)
    assert first.wait() is RunState.FAILED and second.wait() is RunState.FAILED
    assert first.id in second.failure and "resume" in second.failure
    (missing / "row.jsonl").unlink()
    missing.rmdir()
    corpus.rename(missing)
    assert resume(first).wait() is RunState.COMPLETED, first.failure
    missing.rename(corpus)
    assert resume(second).wait() is RunState.COMPLETED, second.failure


def test_a_waiting_run_can_be_stopped_and_resumed(corpus: Path, tmp_path: Path) -> None:
    blocker = Run.create(prepare(corpus), tmp_path / "runs")  # queued for ever: nobody started it
    run = submit(prepare(corpus), after=blocker)
    until(lambda: run.state is RunState.WAITING)
    assert stop(run) == 1
    assert run.wait() is RunState.STOPPED


def test_a_killed_run_is_lost_and_resume_completes_it(corpus: Path, tmp_path: Path) -> None:
    blocker = Run.create(prepare(corpus), tmp_path / "runs")
    run = submit(prepare(corpus), after=blocker)
    until(lambda: run.state is RunState.WAITING)
    held = run.held_by
    assert held is not None
    os.kill(int(held.job_id), signal.SIGKILL)
    os.kill(run.pulses[0].pid, signal.SIGKILL)
    until(lambda: run.state is RunState.LOST)
    run.order.replace(after=()).save(run.path / "order.json")
    assert resume(run).wait() is RunState.COMPLETED, run.failure
    assert "lost" in [event["kind"] for event in run.events()]


def test_a_process_that_is_killed_starts_again_by_itself(corpus: Path, tmp_path: Path) -> None:
    blocker = Run.create(prepare(corpus), tmp_path / "runs")
    run = submit(prepare(corpus), after=blocker)
    until(lambda: run.state is RunState.WAITING)
    first = run.pulses[0].pid
    run.order.replace(after=()).save(run.path / "order.json")
    os.kill(first, signal.SIGKILL)
    until(lambda: run.state is not RunState.WAITING)
    assert run.wait() is RunState.COMPLETED, run.failure
    until(lambda: [e["outcome"] for e in run.events() if e["kind"] == "attempt"] == ["again", "completed"])


def test_a_launcher_that_dies_before_the_job_is_told_as_lost(corpus: Path) -> None:
    run = submit(prepare(corpus))
    run.wait()
    until((run.path / "settled.json").exists)
    for pulse in (run.path / "heartbeat").glob("*.json"):
        pulse.unlink()
    until(lambda: run.state is RunState.LOST)


def test_mistakes_are_refused_before_anything_is_written(corpus: Path, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there are: local"):
        submit(prepare(corpus), profile="nowhere")
    with pytest.raises(LabError, match="max_gpu_hours"):
        submit(prepare(corpus), max_dollars="$5")
    elsewhere = Run.create(prepare(corpus), tmp_path / "elsewhere")
    with pytest.raises(LabError, match="share a folder"):
        submit(prepare(corpus), after=elsewhere)
    assert not list(runs.glob("*/recipe.json"))


def test_every_way_of_submitting_starts_the_tasks_that_share_the_work(
    runs: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that is submitted by itself is one run; budgets are the recipe's, and each run has its part."""
    started: list[list[Run]] = []
    monkeypatch.setattr(submission, "start", lambda block, *rest: started.append(list(block)))
    (tmp_path / "one.txt").write_text("some text")
    plain = prepare(tmp_path / "one.txt")
    shared = plain.replace(tasks=3)
    made = submit_all([shared, plain, shared.shares()[2]], max_gpu_hours=3)
    tasks = [(one.recipe.task, one.order.max_gpu_hours) for block in started for one in block]  # type: ignore[union-attr]
    assert tasks == [(0, 1), (1, 1), (2, 1), (0, 3), (2, 3)]
    assert [run.recipe for run in made] == [shared, plain, shared.shares()[2]]
    served = serve("submit", {"profile": {}, "after": [], "recipes": [shared.model_dump(mode="json")], "options": {}})
    assert len(served["runs"]) == 1 and len(started[-1]) == 3


def test_only_what_has_ended_can_be_resumed(corpus: Path) -> None:
    run = submit(prepare(corpus))
    run.wait()
    with pytest.raises(LabError, match="completed"):
        resume(run)
