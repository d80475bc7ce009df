"""Many runs at once, servers beside a job, bad nodes, and what one does with runs: on the real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster import extend, jobs, requeue, stop, submit, submit_all, tail
from cluster.dev import DevSlurm, Shape
from cluster.slurm import query, sbatch
from lablib.runs import Run, RunState
from lablib.specs import Component, LabError, ModelSpec, Parallelism, Prepare, Pretrain, Profile, variants

if TYPE_CHECKING:
    from lablib.specs import Recipe

TINY = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)
SERVER = Component(name="judge", command=(sys.executable, "-m", "http.server", "{port}", "--bind", "{host}"), ready="/")


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def kinds(run: Run) -> list[str]:
    return [event["kind"] for event in run.events()]


def outcomes(run: Run) -> list[str]:
    return [event["outcome"] for event in run.events() if event["kind"] == "attempt"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = os.environ.get("LAB_HOME")
    os.environ["LAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield Path(os.environ["LAB_HOME"])
    os.environ.pop("LAB_HOME") if before is None else os.environ.update(LAB_HOME=before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))):
        (folder / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(home: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = submit(Prepare(corpus=str(corpus), vocab=512, heldout=0.1), root=tmp_path_factory.mktemp("runs"))
    assert run.wait() is RunState.COMPLETED, run.failure
    return run


def training(data: Run, steps: int = 30, ranks: int = 1) -> Pretrain:
    layout = Parallelism(dp_shard=ranks, micro_batch_size=2)
    return Pretrain(model=TINY, data=data.data, tokens=steps * 256, seq_len=64, batch_tokens=256, precision="fp32",
                    checkpoint_every=5, log_every=1, eval_every=steps, parallelism=layout)  # fmt: skip


def place(**changes: Any) -> Profile:
    return Profile.load("slurm-dev").replace(**{"gpus_per_node": 1, "signal_seconds": 30, **changes})


def test_an_array_is_split_and_throttled_and_each_run_is_its_own(
    slurm: DevSlurm, home: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "hf_" + "Planted0Secret" * 2
    monkeypatch.setenv("HF_TOKEN", planted)
    recipes = variants(Prepare(corpus=str(corpus), heldout=0.1), {"vocab": [300, 310, 320, 330, 340]})
    runs = submit_all(recipes, place(max_array=3), root=tmp_path, at_once=2)
    ids = [run.held_by.job_id for run in runs if run.held_by]
    assert [one.partition("_")[2] for one in ids] == ["0", "1", "2", "0", "1"]
    assert len({one.partition("_")[0] for one in ids}) == 2
    most = 0
    while not all(run.state.finished for run in runs):
        views = [run.view for run in runs]
        most = max(most, sum(view is not None and view.state == "RUNNING" for view in views))
        time.sleep(0.2)
    assert [run.state for run in runs] == [RunState.COMPLETED] * 5, [run.failure for run in runs]
    assert most <= 2
    assert [json.loads((run.path / "recipe.json").read_text())["vocab"] for run in runs] == [300, 310, 320, 330, 340]
    assert list(jobs(tmp_path)["state"]) == ["completed"] * 5
    assert all(isinstance(tail(run), str) for run in runs)
    files = [file for file in tmp_path.rglob("*") if file.is_file() and "data" not in file.parts]
    assert any(file.suffix == ".sh" for file in files), "the batch scripts are among them"
    assert not [file for file in files if planted.encode() in file.read_bytes()]


def test_where_slurm_refuses_a_part_of_a_sweep_the_rest_stays(
    slurm: DevSlurm, data: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first array is queued and works, the second one is refused: only what was never queued is taken away."""
    queued: list[sbatch.Batch] = []

    def refuse(batch: sbatch.Batch) -> None:
        if queued:
            raise LabError("Slurm refused it")
        queued.append(batch)
        really(batch)

    really = sbatch.start
    monkeypatch.setattr(sbatch, "start", refuse)
    recipes, before = variants(training(data, 2), {"seed": [11, 12, 13]}), set(jobs(data.path.parent)["run"])
    with pytest.raises(LabError, match="refused"):
        submit_all(recipes, place(max_array=2), root=data.path.parent)
    left = [Run(data.path.parent / name) for name in set(jobs(data.path.parent)["run"]) - before]
    assert sorted(run.recipe.seed for run in left) == [11, 12]
    assert [run.wait() for run in left] == [RunState.COMPLETED] * 2


def test_a_task_of_an_array_that_dies_starts_again_alone(slurm: DevSlurm, data: Run) -> None:
    runs = submit_all(variants(training(data, 400), {"seed": [1, 2]}), place(), root=data.path.parent)
    until(lambda: "checkpoint" in kinds(runs[1]))
    os.kill(runs[1].pulses[0].pid, signal.SIGKILL)
    for run in runs:
        assert run.wait() is RunState.COMPLETED, run.failure
    until(lambda: outcomes(runs[1]) == ["again", "completed"] and outcomes(runs[0]) == ["completed"])


def test_on_this_machine_a_sweep_works_so_many_at_a_time(home: Path, corpus: Path, tmp_path: Path) -> None:
    recipes = variants(Prepare(corpus=str(corpus), heldout=0.1), {"vocab": [350, 360, 370]})
    runs = submit_all(recipes, root=tmp_path, at_once=1)
    for run in runs:
        assert run.wait() is RunState.COMPLETED, run.failure
    ends = [next(event["time"] for event in run.events() if event["kind"] == "completed") for run in runs]
    begins = [next(event["time"] for event in run.events() if event["kind"] == "fetching") for run in runs]
    assert ends[0] <= begins[1] and ends[1] <= begins[2]


def test_nothing_of_a_sweep_starts_where_one_cannot(home: Path, corpus: Path, tmp_path: Path) -> None:
    fine = Prepare(corpus=str(corpus), vocab=300)
    with pytest.raises(LabError, match="cores bear"):
        submit_all([fine, fine.replace(parallelism=Parallelism(dp_shard=4096))], root=tmp_path)
    assert not list(tmp_path.glob("*/recipe.json"))
    with pytest.raises(LabError, match="no 'lr' there"):
        variants(Prepare(corpus="core"), {"lr": [1]})


@pytest.mark.parametrize("scheduler", [pytest.param("local", marks=pytest.mark.slow), "slurm"])
def test_a_component_answers_before_the_ranks_begin_and_its_death_begins_again(
    slurm: DevSlurm, data: Run, scheduler: str
) -> None:
    where = place() if scheduler == "slurm" else "local"
    run = submit(training(data, 1200), where, root=data.path.parent, components=[SERVER])
    until(lambda: "checkpoint" in kinds(run))
    told = json.loads((run.path / "components" / "judge.json").read_text())
    assert '"GET / HTTP/1.1" 200' in (run.path / "logs" / "judge.log").read_text()
    os.kill(told["pid"], signal.SIGKILL)
    assert run.wait() is RunState.COMPLETED, run.failure
    until(lambda: outcomes(run) == ["again", "completed"])
    assert "component" in kinds(run)
    again = json.loads((run.path / "components" / "judge.json").read_text())["pid"]
    assert again != told["pid"]
    until(lambda: not Path(f"/proc/{again}").exists())  # it ends with the job


def test_a_component_can_have_a_node_of_its_own(slurm: DevSlurm, data: Run) -> None:
    alone = SERVER.replace(nodes=1)
    run = submit(training(data, 20, ranks=2), place(), root=data.path.parent, components=[alone])
    assert run.wait() is RunState.COMPLETED, run.failure
    host = json.loads((run.path / "components" / "judge.json").read_text())["host"]
    steps = query.command("sacct", "-n", "-P", "-j", run.held_by.job_id if run.held_by else "", "-o", "JobID,NodeList")
    assert host.startswith("lab") and any(line.split("|")[1] == host for line in steps.splitlines())
    ranks = next(line.split("|")[1] for line in steps.splitlines() if line.split("|")[0].endswith(".1"))
    assert host not in ranks


def test_a_component_that_never_answers_is_told(data: Run, slurm: DevSlurm) -> None:
    mute = Component(name="mute", command=("sleep", "600"), ready_seconds=1)
    run = submit(training(data), place(retries=0), root=data.path.parent, components=[mute])
    assert run.wait() is RunState.FAILED
    assert "component mute did not answer at /health within 1 s" in run.failure


def test_a_bad_node_is_named_and_later_attempts_stay_away_from_it(slurm: DevSlurm, data: Run, tmp_path: Path) -> None:
    mark = tmp_path / "bad"  # the first node to be looked at is the bad one, whichever Slurm chose
    check = f'ln -s "$SLURMD_NODENAME" {mark} 2>/dev/null; [ "$(readlink {mark})" != "$SLURMD_NODENAME" ] || {{ echo "GPU 3 has fallen off the bus" >&2; exit 1; }}'
    run = submit(training(data, ranks=2), place(health=(check,)), root=data.path.parent)
    assert run.wait() is RunState.COMPLETED, run.failure
    until(lambda: outcomes(run)[-1:] == ["completed"])
    (told,) = [event for event in run.events() if event["kind"] == "unwell"]
    bad = os.readlink(mark)
    assert told["node"] == bad and "fallen off the bus" in told["reasons"][0]
    assert run.order.exclude == (bad,)
    measured = next(event for event in run.events() if event["kind"] == "health")
    assert measured["tflops"] > 0 and measured["all_reduce_gb_s"] > 0


def test_runs_are_requeued_extended_and_ended_from_anywhere(slurm: DevSlurm, data: Run) -> None:
    run = submit(training(data, 2000), place(), root=data.path.parent, max_gpu_hours=1)
    until(lambda: "checkpoint" in kinds(run))
    requeue(run)
    until(lambda: "resumed" in kinds(run))
    with pytest.raises(LabError, match="spent already"):
        extend(run, max_gpu_hours=1e-9)
    with pytest.raises(LabError, match="no price_per_gpu_hour"):
        extend(run, max_dollars=1e-9)
    with pytest.raises(LabError, match="time_limit='soon'"):
        extend(run, time_limit="soon")
    (run.path / "order.json").write_text(run.order.replace(max_gpu_hours=1e-7).to_json())
    until(lambda: run.state.finished)  # a working run reads the new budget
    assert run.state is RunState.STOPPED
    extend(run, max_gpu_hours=1)
    requeue(run)
    until(lambda: run.state is RunState.RUNNING)
    assert stop(run, now=True) == 1
    until(lambda: run.state is RunState.STOPPED)


def test_slurm_foretells_the_start_and_queues_nothing(slurm: DevSlurm, data: Run, tmp_path: Path) -> None:
    before = query.command("squeue", "--me", "-h")
    assert sbatch.expected_start(training(data), place())[:2] == "20"
    with pytest.raises(LabError, match=r"nvalid partition|not available"):
        sbatch.expected_start(training(data), place(partition="nosuch"))
    assert query.command("squeue", "--me", "-h") == before
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(training(data).to_toml())
    words = [sys.executable, "-m", "lab", "submit", str(recipe), "--profile", "slurm-dev", "--test-only", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["expected_start"][:2] == "20"


def test_a_chain_reports_on_itself(slurm: DevSlurm, data: Run) -> None:
    recipe: Recipe = training(data)
    run = submit(recipe, place(), root=data.path.parent, report=True)
    until(lambda: (run.path / "report" / "report.html").is_file())
    page = (run.path / "report" / "report.html").read_text()
    assert run.id in page and data.id in page


def test_without_accounting_runs_work_survive_and_are_told(slurm: DevSlurm, data: Run, tmp_path: Path, ports: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    plain = DevSlurm(tmp_path / "slurm", Shape(nodes=2, accounting=False, port=ports(30)))
    try:
        plain.up()
        monkeypatch.setenv("SLURM_CONF", str(plain.conf))
        query.forget()
        assert query.accounts(["1"]) == {}
        run = submit(training(data, 200, ranks=2), place(nodes=2), root=data.path.parent)
        until(lambda: "checkpoint" in kinds(run))
        os.kill(run.pulses[1].pid, signal.SIGKILL)
        assert run.wait() is RunState.COMPLETED, run.failure
        lost = submit(training(data, 2000), place(retries=0), root=data.path.parent)
        until(lambda: "checkpoint" in kinds(lost))
        query.command("scancel", lost.held_by.job_id if lost.held_by else "")
        until(lambda: lost.state.finished)
    finally:
        plain.down(wipe=True)
        query.forget()
