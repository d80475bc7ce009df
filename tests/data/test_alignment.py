"""Alignment of an item with a passage: the longest common subsequence by its definition, and numbers in their places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data.contamination import grams
from lablib.data.contamination.alignment import Words, aligned

ITEM = "A tank holds 12 litres, a jug 5 and a cup 3; pour until 1 4 9 16 litres are in the four jars on the left shelf"
LETTERS = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def words(text: str) -> Words:
    """The tokens of a text."""
    return Words(*grams.tokens(text)[:3])


def agreement(passage: str, item: str = ITEM) -> float:
    """Of an item all of whose words weigh the same."""
    return aligned(words(item), np.ones(len(words(item).hashes)), words(passage)).agreement


def common(first: list[int], second: list[int]) -> int:
    """Length of the longest common subsequence, by its recurrence."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + common(first[:-1], second[:-1])
    return max(common(first[:-1], second), common(first, second[:-1]))


@settings(max_examples=60, deadline=None)
@given(LETTERS.map(lambda one: one[:7]), LETTERS.map(lambda one: one[:8]))
def test_words_in_order_are_the_longest_common_subsequence(item: list[int], passage: list[int]) -> None:
    plain = [
        Words(np.array(one, np.uint16), np.zeros(len(one), np.uint8), np.zeros(len(one), np.uint16))
        for one in (item, passage)
    ]
    found = aligned(plain[0], np.ones(len(item)), plain[1])
    assert found.words * len(item) == pytest.approx(common(item, passage))
    assert found.words == pytest.approx(found.weight)


@settings(max_examples=30, deadline=None)
@given(LETTERS, LETTERS, LETTERS)
def test_a_copy_is_found_whole_wherever_it_is(before: list[int], item: list[int], after: list[int]) -> None:
    made = [
        Words(np.array(one, np.uint16), np.zeros(len(one), np.uint8), np.zeros(len(one), np.uint16))
        for one in (item, before + item + after)
    ]
    found = aligned(made[0], np.ones(len(item)), made[1])
    assert (found.words, found.weight, found.agreement) == (1, 1, 1)


def test_weights_are_shares() -> None:
    """By hand: of the weights 1, 2 and 3 the first and the last remain."""
    found = aligned(words("red green blue"), np.array([1.0, 2.0, 3.0]), words("some red and blue"))
    assert (found.weight, found.begin, found.end) == (pytest.approx(4 / 6), 1, 4)


def test_another_number_in_its_place_disagrees_and_a_lost_one_says_nothing() -> None:
    assert agreement(ITEM) == 1
    assert agreement(ITEM.replace("12", "many")) == 1 == agreement(ITEM.replace("12 ", ""))
    assert agreement(ITEM.replace("12", "13")) == pytest.approx(6 / 7)
    assert agreement(ITEM.replace("four", "five")) == 0, "numbers in letters are apart"


def test_a_list_that_lost_a_number_is_no_other_list() -> None:
    """Compared place by place, each number after the gap would meet its neighbour."""
    assert agreement(ITEM.replace("1 4 9", "1 9")) == 1
    assert agreement(ITEM.replace("1 4 9 16", "4 9 16 25")) < 0.6, "shifted by one they are other numbers"


def test_numbers_without_words_around_them_are_not_compared() -> None:
    """What follows half an item has numbers of its own."""
    half = ITEM[: ITEM.index("; pour")]
    assert agreement(f"{half}\n\n7 8 6 2 x 5 y 44") == 1


@pytest.mark.parametrize(
    ("text", "same"), [("4hour", "4 hour"), ("A3", "a 3"), ("x2y", "x 2 y"), ("Twenty-five", "20 5"), ("1,300", "1300")]
)
def test_letters_and_digits_that_touch_are_two_words(text: str, same: str) -> None:
    assert grams.tokens(text).hashes.tolist() == grams.tokens(same).hashes.tolist()


def test_tokens_know_the_words_that_they_are_in() -> None:
    text = "the 4hour A3x2 run, 1,300 m"
    first = grams.tokens(text).first
    assert len(first) == len(grams.words([text], "coverage").hashes) + 1 == 7
    assert first.tolist() == [0, 1, 3, 7, 8, 9, 10]
    assert grams.tokens(text).numbers.tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 1, 0]


def test_more_numbers_in_a_row_are_other_numbers_unless_they_are_written_as_one() -> None:
    """A date and a time where the item has a time alone is another question; the same digits with marks between are not."""
    item = "The call began at 16:21 and ended at 17:56 in Oslo"
    assert agreement("The call began at 5406-28-92 78:70 and ended at 5462-21-22 60:81 in Oslo", item) == 0
    assert agreement("The call began at 16 21 and ended at 17 56 in Oslo", item) == 1
    dated = "It was closed on 2503-09-17 and opened on 2503-11-22 at last"
    found = aligned(words(dated), np.ones(15), words(dated.replace("-", "")))
    assert (found.words, found.agreement) == (1, 1)


def test_a_word_in_anothers_place_keeps_the_numbers_beside_it() -> None:
    assert agreement("A pie has 84 portions to share", "A cake has 60 pieces to share") == 0


@pytest.mark.parametrize(
    ("text", "same"), [("two hundred", "200"), ("twenty-five", "25"), ("3 million", "3,000,000"), ("1 300", "1300")]
)
def test_numbers_in_a_row_are_the_one_that_they_say(text: str, same: str) -> None:
    assert set(grams.tokens(f"a {text} b").runs.tolist()) == set(grams.tokens(f"a {same} b").runs.tolist())


def test_invisible_marks_make_no_number() -> None:
    """ "often" has no ten in it, wherever a zero-width space stands."""
    assert not grams.tokens("it is of\u200bten so").numbers.any()
