"""Items: deterministic, unique, and never in two splits, whatever the seeds and counts."""

from __future__ import annotations

import inspect
import re

import pytest
import reasoning_gym
from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_gym.factory import DATASETS

from lablib.data.tasks import REFUSED, most_common_answer, split_items
from lablib.data.tasks.answer import extract_answer
from lablib.data.tasks.items import normalise, split_of
from lablib.specs import LabError, Task

GENERATORS = {
    "gcd": {"max_value": 40},
    "chain_sum": {"min_digits": 1, "max_digits": 2},
    "letter_counting": {"min_words": 2, "max_words": 5},
    "aiw": {"task_type_weights": [1.0, 0.0, 0.0]},
}


def task(generator: str = "gcd", **changes: object) -> Task:
    return Task(
        name="t", generator=generator, **{"params": GENERATORS.get(generator, {}), "train": 40, "test": 20, **changes}
    )


@settings(max_examples=25, deadline=None)
@given(
    generator=st.sampled_from(sorted(GENERATORS)),
    seeds=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    train=st.integers(5, 80),
)
def test_no_prompt_is_in_two_splits_even_of_different_seeds(generator: str, seeds: tuple[int, int], train: int) -> None:
    learnt = split_items(task(generator, seed=seeds[0], train=train), "train")
    asked = split_items(task(generator, seed=seeds[1]), "test")
    assert not {normalise(item.question) for item in learnt} & {normalise(item.question) for item in asked}


def test_splitting_by_seed_would_leak() -> None:
    """The planted bug: neighbouring reasoning-gym seeds are one stream shifted by one."""
    first, second = (reasoning_gym.create_dataset("gcd", seed=seed, size=50) for seed in (0, 1))
    assert first[1]["question"] == second[0]["question"]


def test_items_are_deterministic_unique_and_a_prefix_of_longer_ones() -> None:
    few, many = split_items(task(train=20), "train"), split_items(task(train=40), "train")
    assert few == many[:20] and len({item.key for item in many}) == 40


@pytest.mark.parametrize("generator", ["gsm_symbolic", "list_functions", "word_ladder"])
def test_generators_that_are_not_endless_end(generator: str) -> None:
    """Some lay all items out when they are made: asked for 2³¹ of them they would not come back."""
    learnt, asked = (split_items(task(generator), split) for split in ("train", "test"))
    assert len(learnt) == 40 and len(asked) == 20 and not {one.key for one in learnt} & {one.key for one in asked}


@given(st.text())
def test_the_split_does_not_see_case_width_or_space(text: str) -> None:
    assert split_of(text) == split_of(f"  {normalise(text)}\n")


def test_worked_examples_come_from_train_and_are_not_items() -> None:
    item = split_items(task(fewshot=3), "test")[0]
    assert not item.is_chat and item.prompt.endswith("Answer:") and item.prompt.count("Question:") == 4
    learnt = {found.question for found in split_items(task(fewshot=3), "train")}
    shown = re.findall(r"Question: (.*)\nAnswer: ", item.prompt)
    assert len(shown) == 3 and not set(shown) & learnt
    assert all(split_of(question) == "train" for question in shown)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generator": "no_such"}, "does not exist"),
        ({"generator": "countdown", "params": {}}, "evaluates the answer as Python"),
        ({"params": {"seed": 3}}, "must not set"),
        ({"params": {"no_such": 3}}, "do not suit"),
        ({"params": {"max_value": 5}, "train": 500}, "only"),
    ],
)
def test_a_wrong_task_says_what_to_change(changes: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        split_items(task(**changes), "train")  # type: ignore[arg-type]


def test_every_scorer_that_evaluates_the_answer_is_refused() -> None:
    """Read the installed sources: a new version's new ``eval`` must fail here before a model's text reaches it."""
    for name, (dataset, _) in DATASETS.items():
        source = inspect.getsource(inspect.getmodule(dataset))
        if re.search(r"\b(eval|exec|parse_expr|sympify)\((user_)?answer\b|\(eval\(answer|parse_expr\(answer", source):
            assert name in REFUSED, name


@pytest.mark.parametrize("name", ["game_of_life_halting", "complex_arithmetic", "rush_hour"])
def test_the_refusals_are_real(name: str) -> None:
    data = reasoning_gym.create_dataset(name, seed=5, size=3)
    entry = data[0]
    fooled = any(data.score_answer(text, entry) >= 1 for text in ["nan", "?"])
    assert fooled or not entry["answer"] or data.score_answer(entry["answer"], entry) < 1


def test_most_common_answer() -> None:
    answers = [item.answer for item in split_items(task(), "train")]
    assert answers.count(most_common_answer(task())) == max(map(answers.count, answers))


@pytest.mark.parametrize(
    ("text", "is_chat", "answer"),
    [
        (" 7\n", True, "7"),
        ("<think>3 or 4?</think> 4", True, "4"),
        (" 7\n\nQuestion: 1", False, "7"),
        ("7 or 8", True, "7 or 8"),
        (None, True, ""),
        (["7"], True, ""),
        ("7" * 5000, True, ""),
    ],
)
def test_extract_answer(text: object, is_chat: bool, answer: str) -> None:
    assert extract_answer(text, is_chat) == answer
