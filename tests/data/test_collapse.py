"""The guard against model collapse: caps hold whatever the order, and text that feeds on itself raises the alarm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.data.mixing import Caps, Origin, diversity, drift, guard, made_from
from lablib.specs import LabError


def origin_of(rows: list[tuple[int, float, int]]) -> Origin:
    tokens, share, depth = zip(*rows, strict=True)
    return Origin(np.array(tokens), np.array(share, dtype=float), np.array(depth))


def test_each_cap_drops_what_breaks_it() -> None:
    rows = [(100, 0.0, 0), (100, 1.0, 1), (100, 1.0, 2), (100, 0.6, 1), (50, 1.0, 1)]
    found = guard(origin_of(rows), Caps(depth=1, document=1, corpus=0.5))
    assert found.dropped == {"depth": 1, "document": 0, "corpus": 2}
    assert found.keep.tolist() == [True, True, False, False, False] and found.synthetic == 0.5
    assert guard(origin_of(rows), Caps(depth=9, document=0.5, corpus=1)).dropped["document"] == 4


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.sampled_from([0.0, 0.2, 0.7, 1.0])), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_the_corpus_cap_holds_whatever_the_order(rows: list[tuple[int, float]], cap: float) -> None:
    origin = origin_of([(tokens, share, int(share > 0)) for tokens, share in rows])
    rank = np.array([(7919 * i + tokens) % 104_729 for i, (tokens, _) in enumerate(rows)], dtype=float)
    found = guard(origin, Caps(corpus=cap), rank)
    assert found.synthetic <= cap + 1e-9
    assert found.keep[origin.share == 0].all(), "human text is never dropped"
    turned = np.array(sorted(range(len(rows)), key=lambda i: -i))
    again = guard(Origin(origin.tokens[turned], origin.share[turned], origin.depth[turned]), Caps(corpus=cap), rank[turned])  # fmt: skip
    if len(set(rank)) == len(rank):
        assert again.keep.tolist() == found.keep[turned].tolist()


def test_depth_grows_with_each_rewriting_and_not_with_joining() -> None:
    assert made_from([], []) == (1.0, 1)
    assert made_from([0.0, 1.0], [0, 2]) == (1.0, 3)
    assert made_from([0.0, 1.0], [0, 2], rewritten=False) == (0.5, 2)


def test_provenance_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(LabError, match="provenance"):
        origin_of([(10, 0.0, 1)])
    with pytest.raises(LabError, match="from 0 to 1"):
        origin_of([(10, 1.5, 1)])


def test_distinct_and_compression_by_hand() -> None:
    found = diversity(["a b a", "a b"], 5, orders=(1, 2))
    assert found.distinct == {1: 2 / 5, 2: 2 / 3}
    with pytest.raises(LabError, match="hold only 5"):
        diversity(["a b a", "a b"], 6)


def test_text_that_feeds_on_itself_raises_the_alarm_and_real_text_does_not() -> None:
    """Ten generations, each a bigram model of the last one's sample; against a second sample of the first source."""
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(3000)]
    chance = 1 / np.arange(1, 3001)
    chance /= chance.sum()
    real, other = ([" ".join(draw.choice(words, 50, p=chance)) for _ in range(200)] for _ in range(2))
    base = diversity(real, 10_000)
    assert drift(base, diversity(other, 10_000)) == []
    text = real
    for _ in range(10):
        text = _retold(text, draw)
    alarms = {alarm.measure: alarm.change for alarm in drift(base, diversity(text, 10_000))}
    assert {"distinct-1", "distinct-2", "distinct-3"} <= set(alarms) and min(alarms.values()) > 0.1
    assert "compression ratio" in {alarm.measure for alarm in drift(base, diversity(real[:20] * 10, 10_000))}


def test_unequal_samples_do_not_compare() -> None:
    with pytest.raises(LabError, match="do not compare"):
        drift(diversity(["a b c"], 3), diversity(["a b c"], 2))


def _retold(texts: list[str], draw: np.random.Generator) -> list[str]:
    """As many words drawn from a bigram model of the texts."""
    chain = " ".join(texts).split()
    after: dict[str, list[str]] = {}
    for word, following in pairwise(chain):
        after.setdefault(word, []).append(following)
    made = []
    for _ in texts:
        word = chain[draw.integers(len(chain))]
        line = [word]
        while len(line) < 50:
            options = after.get(word, chain)
            word = options[draw.integers(len(options))]
            line.append(word)
        made.append(" ".join(line))
    return made
