"""The survival matrix on a real Slurm: each fault, and the run goes on from its last checkpoint by itself to the same
losses as a run that nothing happened to."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster import stop, submit
from cluster.slurm import query
from lablib.runs import Run, RunState, heartbeat
from lablib.specs import Mixture, ModelSpec, Parallelism, Prepare, Pretrain, Profile

if TYPE_CHECKING:
    from cluster.dev import DevSlurm

STEPS = 60
LONG = 1000
TINY = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    """Patient: a machine of two cores may run other tests beside several ranks and Slurm."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


class Lab:
    """A folder of runs on the development Slurm with prepared data, and the losses of an undisturbed run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        corpus = root / "corpus"
        corpus.mkdir(parents=True)
        for number, file in enumerate(sorted(Path(__file__).parents[1].rglob("*.py"))):
            (corpus / f"{number}.txt").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        self.data = submit(Prepare(corpus=str(corpus), vocab=512, heldout=0.1), root=root)
        assert self.data.wait() is RunState.COMPLETED, self.data.failure
        plain = submit(self.recipe(Parallelism(dp_shard=1, micro_batch_size=2)), root=root)
        assert plain.wait() is RunState.COMPLETED, plain.failure
        self.losses = losses(plain)
        times = [row["time"] for row in plain.rows()]
        self.pace = (times[-1] - times[0]) / (len(times) - 1)
        """Seconds of an undisturbed step."""

    def recipe(self, layout: Parallelism, steps: int = STEPS) -> Pretrain:
        return Pretrain(
            model=TINY, data=self.data.data, tokens=steps * 256, seq_len=64, batch_tokens=256, precision="fp32",
            mixture=Mixture(max_epochs=100), checkpoint_every=5, log_every=1, eval_every=steps, parallelism=layout,
        )  # fmt: skip

    def start(self, layout: Parallelism | None = None, steps: int = STEPS, **profile: Any) -> Run:
        """A run of two nodes with one rank each, unless told otherwise."""
        where = Profile.load("slurm-dev").replace(**{"gpus_per_node": 1, "signal_seconds": 30, "retries": 1, **profile})
        return submit(self.recipe(layout or Parallelism(dp_shard=2, micro_batch_size=2), steps), where, root=self.root)

    def equals_the_undisturbed(self, run: Run) -> None:
        until(lambda: run.state.finished, 600)
        assert run.state is RunState.COMPLETED, (run.view, run.failure, kinds(run))
        assert losses(run) == pytest.approx(self.losses, rel=2e-5)


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.rows()]


def steps(run: Run) -> list[int]:
    return [event["at_step"] for event in run.events() if event["kind"] == "checkpoint"]


def resumed(run: Run) -> list[int]:
    return [event["at_step"] for event in run.events() if event["kind"] == "resumed"]


def outcomes(run: Run) -> list[str]:
    return [event["outcome"] for event in run.events() if event["kind"] == "attempt"]


@pytest.fixture(scope="module")
def lab(slurm: DevSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    before = os.environ.get("LAB_HOME")
    os.environ["LAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    try:
        yield Lab(tmp_path_factory.mktemp("survival"))
    finally:
        os.environ.pop("LAB_HOME") if before is None else os.environ.update(LAB_HOME=before)


def test_two_nodes_with_two_ranks_each_train_as_one_process_does(lab: Lab) -> None:
    run = lab.start(Parallelism(dp_shard=2, tp=2, micro_batch_size=2), gpus_per_node=2)
    lab.equals_the_undisturbed(run)
    assert len({pulse.pid for pulse in run.pulses}) == 4
    until(lambda: outcomes(run) == ["completed"])


def test_a_rank_that_is_killed(lab: Lab) -> None:
    run = lab.start()
    until(lambda: steps(run))
    os.kill(run.pulses[1].pid, signal.SIGKILL)
    lab.equals_the_undisturbed(run)
    assert resumed(run) and resumed(run)[0] in steps(run)
    until(lambda: outcomes(run) == ["again", "completed"])


def test_a_stopped_rank_is_noticed_and_its_stacks_are_kept(lab: Lab) -> None:
    run = lab.start(hang=20.0, retries=4)  # a busy machine may be silent for as long while it begins
    until(lambda: steps(run))
    os.kill(run.pulses[1].pid, signal.SIGSTOP)
    lab.equals_the_undisturbed(run)
    assert "hang" in kinds(run)
    stacks = (run.path / "logs" / "stacks-0.txt").read_text()
    assert "lablib/train" in stacks and "Current thread" in stacks


@pytest.mark.timeout(1200)
def test_a_time_limit_shorter_than_the_training(lab: Lab) -> None:
    """As many steps as take fifteen seconds without checkpoints or disturbance, in jobs of one minute of which half is left to
    save: several jobs' worth, as each begins and saves for most of its half."""
    wanted = min(3000, max(100, int(15 / lab.pace)))
    plain = submit(lab.recipe(Parallelism(dp_shard=1, micro_batch_size=2), steps=wanted), root=lab.root)
    assert plain.wait() is RunState.COMPLETED
    run = lab.start(steps=wanted, time=60.0, signal_seconds=30, retries=12)
    until(lambda: run.state.finished, 900)
    assert run.state is RunState.COMPLETED, (run.view, run.failure, outcomes(run))
    assert resumed(run) and set(outcomes(run)) <= {"again", "completed"}
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.timeout(1200)
def test_a_rank_that_hangs_until_the_time_limit(lab: Lab) -> None:
    """The guard's patience is longer than what is left: the ranks are ended in time for the run to be queued again."""
    run = lab.start(steps=120, time=60.0, signal_seconds=30, hang=600.0, retries=12)
    until(lambda: steps(run))
    pid = freeze(run, 1)
    until(lambda: "overdue" in kinds(run))
    os.waitpid(pid, 0)  # a traced process is nobody else's to bury
    until(lambda: run.state.finished, 600)
    assert run.state is RunState.COMPLETED, (run.view, run.failure, outcomes(run))
    assert resumed(run)


def freeze(run: Run, rank: int) -> int:
    """Stop a rank, as soon as it lives, as its tracer: the SIGCONT that comes along with Slurm's own warning does not wake
    this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    attach = 16
    frozen = list[int]()
    until(lambda: frozen or frozen.extend(pid for pid in living(run, rank) if not libc.ptrace(attach, pid, None, None)))
    return frozen[0]


def stop_rank(run: Run, rank: int) -> None:
    """SIGSTOP, where it lives: alive, silent, deaf to every other signal but KILL and CONT."""
    for pid in living(run, rank):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGSTOP)


def living(run: Run, rank: int) -> list[int]:
    return [one.pid for one in run.pulses if one.rank == rank and one.exit is None and heartbeat.alive(one)]


def kinds(run: Run) -> list[str]:
    return [event["kind"] for event in run.events()]


def test_requeued_by_an_administrator(lab: Lab) -> None:
    run = lab.start()
    until(lambda: steps(run))
    assert run.held_by is not None
    query.command("scontrol", "requeue", run.held_by.job_id)
    until(lambda: run.state is RunState.QUEUED or resumed(run))
    lab.equals_the_undisturbed(run)
    assert resumed(run)


@pytest.mark.parametrize("grace", [True, False], ids=["with a signal", "without"])
def test_preemption(lab: Lab, slurm: DevSlurm, grace: bool) -> None:
    run = lab.start(partition="scav" if grace else "scav-now")
    until(lambda: steps(run))
    urgent = query.command(
        "sbatch", "--parsable", "-p", "gpu", "-N4", "--exclusive", "--wrap", "sleep 2", "-o", "/dev/null"
    ).strip()
    until(lambda: run.view is not None and run.view.restarts > 0)
    lab.equals_the_undisturbed(run)
    assert resumed(run) and urgent.isdigit()


def test_a_node_that_dies(lab: Lab, slurm: DevSlurm) -> None:
    run = lab.start()
    until(lambda: steps(run))
    assert run.view is not None
    node = re.sub(r"\[(\d+)[,-].*", r"\1", run.view.nodes).split(",")[0]
    slurm.kill_node(node)
    try:
        lab.equals_the_undisturbed(run)
    finally:
        slurm.start_node(node)
    assert resumed(run)


def test_a_controller_that_restarts(lab: Lab, slurm: DevSlurm) -> None:
    run = lab.start()
    until(lambda: steps(run))
    time.sleep(5)  # what a controller has not yet saved is lost with it (Slurm 22.05)
    slurm.stop_controller()
    assert run.state in (RunState.RUNNING, RunState.COMPLETED), "runs go on, and are seen, without a controller"
    slurm.start_controller()
    lab.equals_the_undisturbed(run)
    assert resumed(run) == []


def test_the_submitters_whole_session_is_killed(lab: Lab) -> None:
    recipe = lab.root / "recipe.json"
    recipe.write_text(lab.recipe(Parallelism(dp_shard=2, micro_batch_size=2)).to_json())
    code = f"""
import time
from pathlib import Path
from cluster import submit
from lablib.specs import Profile, load_recipe
where = Profile.load("slurm-dev").replace(gpus_per_node=1)
print(submit(load_recipe({str(recipe)!r}), where, root=Path({str(lab.root)!r})).id, flush=True)
time.sleep(60)
"""
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert kernel.stdout is not None
    run = Run(lab.root / kernel.stdout.readline().strip())
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    lab.equals_the_undisturbed(run)


@pytest.mark.timeout(900)
def test_stopped_on_request_and_by_its_budget(lab: Lab) -> None:
    asked, poor = lab.start(steps=10 * LONG), lab.start(steps=10 * LONG)
    until(lambda: steps(asked) and steps(poor))
    poor.order.replace(max_gpu_hours=2 * (poor.seconds + 5) / 3600).save(poor.path / "order.json")
    assert stop(asked) == 1
    for run, why in ((asked, "asked"), (poor, "budget")):
        until(lambda run=run: run.state.finished)
        assert run.state is RunState.STOPPED, (run.view, run.failure)
        assert [event["why"] for event in run.events() if event["kind"] == "stopped"] == [why]
        assert 0 < steps(run)[-1] < 10 * LONG


def test_what_depends_on_a_failed_run_is_told_why_and_resumes_after_it(lab: Lab) -> None:
    where = Profile.load("slurm-dev")
    missing = lab.root / "empty"
    missing.mkdir()
    (missing / "row.jsonl").write_text(json.dumps({"text": 1}))
    first = submit(Prepare(corpus=str(missing), vocab=512, heldout=0.1), where, root=lab.root)
    second = submit(Prepare(corpus=str(lab.root / "corpus"), vocab=512, heldout=0.1), where, after=first, root=lab.root)
    until(lambda: first.state.finished and second.state.finished)
    assert first.state is RunState.FAILED and second.state is RunState.FAILED
    assert "nothing in it can be read" in first.failure and first.id in second.failure and "resume" in second.failure


def test_cancelled_before_its_first_step(lab: Lab) -> None:
    run = lab.start()
    until(lambda: run.state is RunState.RUNNING)
    assert run.held_by is not None
    query.command("scancel", run.held_by.job_id)
    until(lambda: run.state.finished)
    assert run.state is RunState.STOPPED and outcomes(run) in ([], ["released"])


def test_cancelled_behind_our_back(lab: Lab) -> None:
    run = lab.start(steps=LONG)
    until(lambda: steps(run))
    assert run.held_by is not None
    query.command("scancel", run.held_by.job_id)
    until(lambda: run.state.finished)
    assert run.state is RunState.STOPPED
    time.sleep(2 * heartbeat.INTERVAL / 10)
    assert run.state is RunState.STOPPED, "and it stays so"
