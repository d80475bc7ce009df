"""Hashed shingles against the words themselves, the S-curve against published figures and drawn edits, the settings."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_jaccard, plain_set, plain_words

from lablib.data.dedup import (
    NearDuplicates,
    shingles,
    survivors,
    theory,
)
from lablib.specs import LabError
from lablib.specs.dedup import BUDGET, Dedup, bands_for, default_banding, reach

WORDS = ["a", "be", "sea", "day", "eagle", "fog", "gulf", "1", "22", "333", "Maß", "ﬁn", "Ωmega", "naïve", "x_y"]
TEXTS = st.lists(st.sampled_from([*WORDS, "東京", "ไทย", "\u00ad", "e\u0301", "...", "\n"]), max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def repository() -> list[str]:
    """Real text."""
    return plain.repository()


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6), st.integers(1, 6))
def test_hashed_shingles_are_the_shingles(texts: list[str], ngram: int) -> None:
    """Same sizes, same overlaps, for empty and short documents, ligatures, soft hyphens and scripts without spaces."""
    sets = shingles.shingle_sets(texts, ngram)
    for i, one in enumerate(texts):
        assert len(sets[i]) == len(plain_set(one, ngram))
        assert (np.diff(sets[i].astype(object)) > 0).all()
        for j, other in enumerate(texts):
            assert survivors.jaccard(sets[i], sets[j]) == plain_jaccard(one, other, ngram)


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(20, 200))
def test_hashes_do_not_depend_on_the_batch(texts: list[str], piece: int) -> None:
    """Neither on what else is laid out beside a text nor on where a long text is cut."""
    together = shingles.word_hashes(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles, "PIECE", piece)
        cut = shingles.word_hashes(texts)
    assert (together.hashes == cut.hashes).all() and (together.offsets == cut.offsets).all()
    alone = [shingles.word_hashes([text]).hashes for text in texts]
    assert (np.concatenate(alone) == together.hashes).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [("the ﬁne print", "THE FINE PRINT"), ("ten\u00a0miles", "ten miles"), ("１２３ go", "123 go"), ("so\u00adft", "soft"),
     ("“quoted”", '"quoted"'), ("caf\u0065\u0301", "café"), ("zero\u200bwidth", "zerowidth"), ("Straße", "STRASSE")],
)  # fmt: skip
def test_spellings_of_the_same_words_are_the_same(one: str, other: str) -> None:
    made = shingles.word_hashes([one, other])
    assert (made[0] == made[1]).all()


@pytest.mark.parametrize(("one", "other"), [("hall 12", "hall 13"), ("ab c", "a bc"), ("क", "कि"), ("a b", "b a")])
def test_other_words_are_other(one: str, other: str) -> None:
    """Numbers are words, spaces count, and so do vowel signs."""
    made = shingles.word_hashes([one, other])
    assert len(made[0]) != len(made[1]) or (made[0] != made[1]).any()


def test_word_hashes_of_real_text_do_not_collide(repository: list[str]) -> None:
    words = {word for text in repository for word in plain_words(text)}
    assert len(np.unique(shingles.word_hashes(sorted(words)).hashes)) == len(words) > 3000


def test_published_bandings_and_the_notes_figures() -> None:
    """RedPajama-V2 gives 14×9 for .7 and 9×13 for .8, 5×25 for .9 (its README); FineWeb's 14×8 catches .3 at 5 % edits."""
    for bands, rows, threshold in ((14, 9, 0.7), (9, 13, 0.8), (5, 25, 0.9)):
        assert theory.steepest(bands, rows) == pytest.approx(threshold, abs=0.05)
    assert float(theory.edited_jaccard(0.05, 5)) == pytest.approx(0.631, abs=1e-3)
    assert float(theory.catch(theory.edited_jaccard(0.05, 5), 14, 8)) == pytest.approx(0.30, abs=0.005)
    assert float(theory.catch(theory.edited_jaccard(0.05, 5), 25, 5)) == pytest.approx(0.93, abs=0.005)
    assert float(theory.edited_jaccard(0.05, 3)) == pytest.approx(0.75, abs=0.005)


@given(st.floats(0.01, 0.6), st.integers(1, 12))
def test_the_edit_rate_of_a_similarity_is_the_inverse(rate: float, ngram: int) -> None:
    assert theory.edit_rate(float(theory.edited_jaccard(rate, ngram)), ngram) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(("rate", "words"), [(0.01, 100), (0.03, 400), (0.05, 200), (0.2, 1000)])
def test_the_share_that_is_found_agrees_with_drawing_edits(rate: float, words: int) -> None:
    """20,000 copies with their edits drawn word by word: mean, spread and catch; verified is rarer than proposed."""
    rng = np.random.default_rng(5)
    kept = rng.random((20_000, words)) >= rate
    whole = np.lib.stride_tricks.sliding_window_view(kept, 5, axis=1).all(axis=2).mean(axis=1)
    assert whole.mean() == pytest.approx(float(theory.untouched(rate, 5)), abs=4e-3)
    assert whole.std() == pytest.approx(theory.spread(rate, 5, words), rel=0.03)
    jaccard = whole / (2 - whole)
    drawn = float(np.mean(np.where(jaccard >= 0.7, theory.catch(jaccard, 16, 6), 0)))
    assert theory.found(rate, 5, 16, 6, 0.7, words) == pytest.approx(drawn, abs=0.03)


@given(st.floats(0.3, 0.99))
def test_the_default_banding_keeps_its_promise(threshold: float) -> None:
    """.99 at a tenth above the threshold, with one band fewer it would not, and within the budget of hashes."""
    bands, rows = default_banding(threshold)
    target = reach(threshold)
    assert theory.catch(target, bands, rows) >= 0.99
    assert bands == 1 or theory.catch(target, bands - 1, rows) < 0.99
    assert bands * rows <= BUDGET < (rows + 1) * bands_for(rows + 1, target)


def test_one_of_bands_and_rows_brings_the_other() -> None:
    assert Dedup(rows=4).banding == (bands_for(4, 0.8), 4)
    bands, rows = Dedup(bands=30).banding
    assert bands == 30 and theory.catch(0.8, 30, rows) >= 0.99 > float(theory.catch(0.8, 30, rows + 1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"threshold": 1.2}, "less than or equal to 1"), ({"bands": 2, "rows": 20}, "take more bands or fewer rows: bands=16, rows=6"),
     ({"bands": 1000, "rows": 20}, "more than 2048"), ({"prefer": ("a", "a")}, "twice"), ({"normaliser": "bytes"}, "normaliser")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_with_the_remedy(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Dedup(**wrong)


def test_the_key_covers_what_decides_and_nothing_else() -> None:
    key = NearDuplicates().key()
    assert NearDuplicates(workers=3).key() == key == NearDuplicates(Dedup(bands=16, rows=6)).key()
    others = [Dedup(threshold=0.8), Dedup(ngram=4), Dedup(bands=17), Dedup(scope="domain"), Dedup(keep="any"), Dedup(prefer=("a",))]  # fmt: skip
    assert len({key, *(NearDuplicates(other).key() for other in others)}) == 7
