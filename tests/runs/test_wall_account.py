"""The account of a run's wall time against jobs whose every second is known because the test lived through them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.explorers.wall import wall_table
from lablib.runs import Run, jsonl
from lablib.runs.account import PARTS, account
from lablib.specs import ModelSpec, Pretrain

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, ffn=128, vocab=512)


@dataclass
class Life:
    """A job that is lived through second by second, and writes what a recorder would."""

    path: Path
    log_every: int = 1
    now: float = 1000.0
    step: int = 0
    kept: int = 0
    truth: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PARTS, "wall", "between"), 0.0))
    spent: dict[int, float] = field(default_factory=dict)
    """Useful seconds of each step that counts so far."""
    unlogged: list[tuple[float, float]] = field(default_factory=list)

    def note(self, kind: str, **details: Any) -> None:
        jsonl.append(self.path / "events.jsonl", {"kind": kind, "time": self.now, **details})

    def begin(self, loading: float) -> None:
        first = self.truth["wall"] == 0
        self.note("started", attempt=0 if first else 1)
        self.pass_(loading, "start" if first else "restarts")
        if self.kept:
            self.note("resumed", at_step=self.kept)
        self.back(self.kept)

    def pass_(self, seconds: float, part: str = "") -> None:
        self.now += seconds
        self.truth["wall"] += seconds
        if part:
            self.truth[part] += seconds

    def back(self, step: int) -> None:
        self.truth["lost work"] += sum(seconds for done, seconds in self.spent.items() if done > step)
        self.spent = {done: seconds for done, seconds in self.spent.items() if done <= step}
        self.step, self.unlogged = step, []

    def train(self, seconds: float, wait: float) -> None:
        self.pass_(seconds + wait)
        self.truth["data"] += wait
        self.step += 1
        self.spent[self.step] = seconds
        self.unlogged.append((seconds, wait))
        if self.step % self.log_every == 0:
            took, waited = (sum(column) for column in zip(*self.unlogged, strict=True))
            mean = (took + waited) / len(self.unlogged)
            row = {"step": self.step, "time": self.now, "step_seconds": mean, "data_wait": waited / (took + waited)}
            jsonl.append(self.path / "metrics" / "train.jsonl", row)
            self.unlogged = []

    def aside(self, kind: str, seconds: float) -> None:
        self.pass_(seconds, "checkpoints" if kind == "checkpoint" else "evaluation")
        self.note(kind, at_step=self.step, took=seconds)
        self.kept = self.step if kind == "checkpoint" else self.kept

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.truth["between"] += seconds


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(Run.create(Pretrain(model=MODEL, tokens="1M"), tmp_path).path)


def test_a_killed_attempt_costs_its_steps_and_the_restart(life: Life) -> None:
    life.begin(30.0)
    for _ in range(5):
        life.train(9.0, 1.0)
    life.aside("checkpoint", 4.0)
    life.aside("evaluated", 3.0)
    for _ in range(2):
        life.train(9.0, 1.0)
    life.rest(60.0)
    life.begin(50.0)
    for _ in range(3):
        life.train(9.0, 1.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.attempts == 2 and found.between == pytest.approx(60.0)
    assert found.wall == pytest.approx(30 + 50 + 4 + 3 + 10 * 10) and found.useful == pytest.approx(8 * 9)
    assert found.parts == pytest.approx(
        {"start": 30, "restarts": 50, "lost work": 18, "checkpoints": 4, "evaluation": 3, "data": 10, "other": 0}
    )
    assert found.goodput == pytest.approx(72 / 187)


def test_a_rewind_makes_its_steps_lost_work(life: Life) -> None:
    life.begin(1.0)
    for _ in range(8):
        life.train(1.0, 0.0)
    life.note("rewound", at_step=8, to_step=3)
    life.back(3)
    for _ in range(2):
        life.train(1.0, 0.0)
    life.note("stopped", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.parts["lost work"] == pytest.approx(5.0) and found.useful == pytest.approx(5.0)


SECONDS = st.floats(0.1, 100.0)
MOMENTS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), SECONDS, SECONDS),
        st.tuples(st.just("checkpoint"), SECONDS, SECONDS),
        st.tuples(st.just("evaluated"), SECONDS, SECONDS),
        st.tuples(st.just("kill"), SECONDS, SECONDS),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(moments=MOMENTS)
def test_every_second_is_accounted_for_once(moments: list[tuple[str, float, float]], tmp_path_factory: Any) -> None:
    life = Life(Run.create(Pretrain(model=MODEL, tokens="1M"), tmp_path_factory.mktemp("life")).path)
    life.begin(5.0)
    life.train(1.0, 0.5)
    for kind, one, other in moments:
        if kind == "train":
            life.train(one, other)
        elif kind == "kill":
            life.rest(one)
            life.begin(other)
            life.train(1.0, 0.5)
        else:
            life.aside(kind, one)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None
    assert found.wall == pytest.approx(life.truth["wall"]) and found.between == pytest.approx(life.truth["between"])
    assert found.useful == pytest.approx(sum(life.spent.values()))
    assert {name: found.parts[name] for name in PARTS} == pytest.approx({name: life.truth[name] for name in PARTS}, abs=1e-6)  # fmt: skip


def test_rows_that_are_means_of_several_steps(life: Life) -> None:
    life.log_every = 4
    life.begin(2.0)
    for _ in range(8):
        life.train(1.0, 0.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.useful == pytest.approx(8.0) and found.parts["start"] == pytest.approx(2.0)


def test_waiting_for_other_runs_is_not_the_runs_time(life: Life) -> None:
    life.note("started")
    life.now += 500
    life.note("phase", phase="running", left="waiting")
    life.now += 2
    life.train(1.0, 0.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.wall == pytest.approx(3.0) and found.parts["start"] == pytest.approx(2.0)


def test_what_is_written_after_a_kill_is_not_the_attempts_time(life: Life) -> None:
    life.log_every = 4
    life.begin(2.0)
    for _ in range(6):
        life.train(1.0, 0.0)
    life.rest(7200)
    for kind in ("lost", "attempt", "resubmitted", "extended"):  # all at the resumption, hours later
        life.note(kind, **({"seconds": 7.5} if kind == "lost" else {}))
    life.rest(0.5)
    life.begin(3.0)
    for _ in range(4):
        life.train(1.0, 0.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.wall == pytest.approx(7.5 + 3 + 4) and found.between == pytest.approx(7201)
    assert found.parts["other"] == pytest.approx(1.5), "the two steps that were not logged, as far as it was heard of"
    assert found.parts["lost work"] == pytest.approx(4.0) and found.useful == pytest.approx(4.0)


def test_a_post_training_run_of_before_resumes_where_its_checkpoint_says(life: Life) -> None:
    life.begin(1.0)
    for _ in range(5):
        life.train(1.0, 0.0)
    life.rest(1.0)
    life.note("started")
    life.note("resumed", checkpoint="checkpoint-3")
    life.back(3)
    life.train(1.0, 0.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None and found.parts["lost work"] == pytest.approx(2.0) and found.useful == pytest.approx(4.0)


def test_a_run_without_steps_or_starts_has_no_account(life: Life) -> None:
    life.note("started")
    assert account(Run(life.path)) is None
    (life.path / "events.jsonl").unlink()
    life.train(1.0, 0.0)
    assert account(Run(life.path)) is None


def test_the_table_sets_the_plan_beside(life: Life) -> None:
    life.begin(10.0)
    life.train(80.0, 10.0)
    life.note("completed", seconds=0.0)
    found = account(Run(life.path))
    assert found is not None
    plan = {"effective": {"low": 0.7, "mid": 0.85, "high": 0.9}, "parts": {"restarts": 0.1, "slow steps": 0.05}}
    made = wall_table(json.loads(json.dumps(vars(found))), {"goodput": plan})
    rows = {row[0]: row[1:] for row in made.rows}
    assert rows["useful steps"] == ("1 min 20 s", "80.0%", "85.0% (70% to 90%)")
    assert rows["restarts"][2] == "10.0%" and rows["slow steps"] == ("–", "–", "5.0%") and rows["start"][1] == "10.0%"
    assert "evaluation" not in rows
