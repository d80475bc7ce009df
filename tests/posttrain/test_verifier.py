"""The scorer: right is right from any thread, junk is wrong and never an exception, errors are told apart."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import reasoning_gym
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.data.tasks import Item, Verifier, split_items, worker
from lablib.specs import LabError, Task

TASK = Task(name="aiw", generator="aiw", params={"task_type_weights": [1.0, 0.0, 0.0]}, train=40, test=30)
ITEMS = split_items(TASK, "test")
HOSTILE = [
    "",
    " ",
    "\n",
    "0 1 2 3 4 5 6 7 8 9",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
    "The answer is {right}.",
    "{right} {right}",
    "{right}\nor something else",
    "\\boxed{{right}} \\boxed{{right}}",
    "<think>{right}</think>",
    "<think>{right}</think> <think>",
    "__import__('os').kill(1, 9)",
    "sys.exit(0)",
    "raise SystemExit(0)",
    "while True: pass",
    "lambda self: True",
    "nan",
    "inf",
    "1e999",
    "-0",
    "None",
    "True",
    "9" * 100_000,
    "(" * 3000,
    "\x00",
    "\ud800",
    "[1.0, null]",
    '{"score": 1}',
    '{"score": 1, "error": null}\n',
    "\u202e5",
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(TASK) as made:
        yield made


def scores(verifier: Verifier, items: list[Item], texts: list[Any]) -> list[float | None]:
    return [verdict.score for verdict in verifier.score(items, texts)]


def test_right_answers_score_one_from_main_thread_worker_thread_and_event_loop(verifier: Verifier) -> None:
    """Where scorers use signals, the last two give silent zeros without a process of their own."""
    answers: list[Any] = [item.answer for item in ITEMS]
    assert scores(verifier, ITEMS, answers) == [1.0] * len(ITEMS)
    found: list[list[float | None]] = []
    thread = threading.Thread(target=lambda: found.append(scores(verifier, ITEMS, answers)))
    thread.start()
    thread.join()

    async def inside() -> list[float | None]:
        return scores(verifier, ITEMS, answers)

    loop = threading.Thread(target=lambda: found.append(asyncio.run(inside())))  # a loop of its own, as a kernel has
    loop.start()
    loop.join()
    assert found == [[1.0] * len(ITEMS)] * 2


def test_hostile_completions_score_zero(verifier: Verifier) -> None:
    for item in ITEMS[:5]:
        texts = [text.replace("{right}", item.answer) for text in HOSTILE]
        assert scores(verifier, [item] * len(texts), texts) == [0.0] * len(texts)
    assert scores(verifier, ITEMS[:3], [None, 5, ["5"]]) == [0.0] * 3


def test_the_library_alone_rewards_listing_every_answer() -> None:
    """The planted alternative: taking its partial credit as reward pays for saying all digits at once."""
    data = reasoning_gym.create_dataset("aiw", seed=0, size=5)
    assert any(data.score_answer("0 1 2 3 4 5 6 7 8 9", data[i]) > 0 for i in range(5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=300))
def test_any_text_gets_a_verdict(verifier: Verifier, text: str) -> None:
    [verdict] = verifier.score(ITEMS[:1], [text])
    assert verdict.score == float(verdict.answer == ITEMS[0].answer)


def test_a_scorer_that_raises_on_junk_counts_an_error_and_gives_zero() -> None:
    task = Task(name="primes", generator="prime_factorization", train=10, test=5)
    items = split_items(task, "test")
    with Verifier(task) as verifier:
        [junk, wrong, right] = verifier.score(items[:3], ["x × y", "1", items[2].answer])
        assert (junk.score, wrong.score, right.score) == (0.0, 0.0, 1.0)
        assert "ValueError" in str(junk.error) and wrong.error is None and verifier.errors == 1


def test_a_broken_scorer_gives_neither_right_nor_wrong() -> None:
    def explode(answer: str, entry: dict[str, Any]) -> float:
        raise RuntimeError("no signal in this thread")

    source = {0: {"answer": "5"}}
    kind = type("Broken", (), {"score_answer": staticmethod(explode), "__getitem__": lambda self, i: source[i]})
    assert worker.score(kind(), 0, "5")["score"] is None


def test_a_generator_that_rejects_its_own_answers_is_refused_at_the_start(verifier: Verifier) -> None:
    wrong = [Item(item.index, item.question, "wrong", item.prompt, True) for item in ITEMS[:2]]
    with pytest.raises(LabError, match="does not accept its own answer"):
        verifier.check(wrong)


def test_a_hanging_scorer_times_out_and_the_next_answer_is_scored() -> None:
    with Verifier(TASK, seconds=0.5) as verifier:
        verifier.check(ITEMS[:1])
        child = verifier._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        [hung] = verifier.score(ITEMS[:1], [ITEMS[0].answer])
        assert (hung.score, hung.error) == (0.0, "timeout")
        assert scores(verifier, ITEMS[:1], [ITEMS[0].answer]) == [1.0]


def test_a_dying_scorer_is_replaced() -> None:
    with Verifier(TASK) as verifier:
        verifier.check(ITEMS[:1])
        child = verifier._child
        assert child is not None
        child.kill()
        child.wait()
        assert scores(verifier, ITEMS[:2], [ITEMS[0].answer, "no"]) == [1.0, 0.0]


def test_the_scorer_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    with Verifier(TASK) as verifier:
        verifier.check(ITEMS[:1])
        assert verifier._child is not None
        with open(f"/proc/{verifier._child.pid}/environ", "rb") as file:
            assert b"secret" not in file.read()
