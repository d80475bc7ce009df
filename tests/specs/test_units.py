"""Human units: what they mean, that they print back, and that anything else is one teaching message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.specs import LabError, Prepare, Pretrain
from lablib.specs.units import (
    parse_bytes,
    parse_count,
    parse_dollars,
    parse_seconds,
    show_count,
    show_dollars,
    show_flops,
    show_seconds,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("15T", 15 * 10**12), ("4M", 4_000_000), ("12k", 12_000), ("1.5B", 1_500_000_000), ("7G", 7 * 10**9), (" 1_000 ", 1000), ("2e6", 2_000_000), (5, 5), ("0.5k", 500)],
)  # fmt: skip
def test_counts(text: object, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("2 days", 172_800), ("90s", 90), ("10 min", 600), ("1.5 h", 5400), ("1 week", 604_800), (30, 30), ("2 hours", 7200), ("1 day", 86_400)],
)  # fmt: skip
def test_seconds(text: object, value: float) -> None:
    assert parse_seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("$50k", 50_000), ("$1.2M", 1_200_000), ("3.5", 3.5), (2, 2), ("$ 10", 10)]
)
def test_dollars(text: object, value: float) -> None:
    assert parse_dollars(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("8 GiB", 2**33), ("8 GB", 8 * 10**9), ("512 KiB", 2**19), ("500 MB", 5 * 10**8), (100, 100)]
)
def test_bytes_know_both_kinds_of_giga(text: object, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["many", "", "12 parsecs", "1.5", "4MM", "--3", True, None, [1], "nan", "inf", float("nan"), float("inf")]
)
def test_a_count_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be read"):
        parse_count(text)


@given(st.integers(1, 999), st.sampled_from(["k", "M", "B", "T"]))
def test_a_shown_count_is_read_back(number: int, suffix: str) -> None:
    value = parse_count(f"{number}{suffix}")
    assert parse_count(show_count(value)) == value


@pytest.mark.parametrize(
    ("shown", "text"),
    [(show_count(671e9), "671B"), (show_seconds(0.02), "20 ms"), (show_seconds(93), "1 min 33 s"), (show_seconds(7300), "2 h 01 min"),
     (show_seconds(3 * 86400), "3.0 days"), (show_dollars(73_728), "$73,728"), (show_dollars(0.012), "$0.0120"), (show_dollars(2.5), "$2.50"),
     (show_flops(4.2e22), "4.2×10²² FLOP"), (show_flops(0), "0 FLOP")],
)  # fmt: skip
def test_numbers_are_shown_as_people_write_them(shown: str, text: str) -> None:
    assert shown == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": -5}, "tokens"),
        ({"tokens": "-1B"}, "tokens"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": "lots"}, '"15T"'),
        ({"batch_tokens": "-4M"}, "batch_tokens"),
    ],
)
def test_wrong_counts_name_field_and_value(changes: dict[str, object], words: str) -> None:
    with pytest.raises(LabError) as caught:
        Pretrain(**{"model": "qwen3-0.6b", "tokens": "1B", **changes})
    message = str(caught.value)
    assert words in message and repr(next(iter(changes.values()))) in message and "Traceback" not in message
    assert len(message.splitlines()) == 2


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises(LabError, match="max_bytes"):
        Prepare(max_bytes="0 MB")
