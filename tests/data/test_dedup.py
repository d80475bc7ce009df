"""Near-duplicates against brute force over the words themselves, against the S-curve, and against shuffling."""

from __future__ import annotations

import functools
import random
import re
import tracemalloc
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data import funnel
from lablib.data.corpus import Corpus, Writer
from lablib.data.dedup import (
    NearDuplicates,
    RepeatedLines,
    near_duplicates,
    repeats,
    shingles,
    sketches,
    survivors,
    theory,
)
from lablib.data.documents import Document
from lablib.specs import LabError
from lablib.specs.dedup import BUDGET, Dedup, bands_for, default_banding, reach

REPO = Path(__file__).resolve().parents[2]
WORDS = ["a", "be", "sea", "day", "eagle", "fog", "gulf", "1", "22", "333", "Maß", "ﬁn", "Ωmega", "naïve", "x_y"]
TEXTS = st.lists(st.sampled_from([*WORDS, "東京", "ไทย", "\u00ad", "e\u0301", "...", "\n"]), max_size=30).map(" ".join)


def doc(text: str, domain: str = "d") -> Document:
    return Document(domain, "test", "none", text)


@functools.lru_cache(maxsize=5000)
def plain_words(text: str) -> list[str]:
    """The normaliser as its definition reads, a character at a time."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    spaced = re.sub(r"([\u3040-\u30ff\u4e00-\u9fff\u0e00-\u0e7f])", r" \1 ", text)
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in spaced).split()


def plain_set(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = plain_words(text)
    if len(words) < ngram:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)}


def plain_jaccard(one: str, other: str, ngram: int) -> float:
    a, b = plain_set(one, ngram), plain_set(other, ngram)
    return len(a & b) / len(a | b) if a and b else 0.0


def edited(text: str, rate: float, rng: random.Random) -> str:
    """Each word replaced with probability `rate` by one that is nowhere else."""
    return " ".join(f"new{rng.getrandbits(60)}" if rng.random() < rate else word for word in plain_words(text))


@pytest.fixture(scope="module")
def repository() -> list[str]:
    """This repository's own sources and pages, those of a few hundred words."""
    files = sorted(path for part in ("lablib", "docs", "cluster") for path in (REPO / part).rglob("*") if path.suffix in (".py", ".md"))  # fmt: skip
    found = [path.read_text(encoding="utf-8") for path in files]
    return [text for text in found if 150 <= len(plain_words(text)) <= 3000]


# -- shingles ---------------------------------------------------------------------------------------------------------


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


# -- theory -----------------------------------------------------------------------------------------------------------


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


# -- settings ---------------------------------------------------------------------------------------------------------


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


# -- decisions --------------------------------------------------------------------------------------------------------


def family(seed: int, size: int) -> list[Document]:
    """Documents and copies at many rates of edits, so that similarities lie all over the scale."""
    rng = random.Random(seed)
    made = []
    for _ in range(size):
        text = " ".join(f"w{rng.randrange(3000)}" for _ in range(rng.randint(30, 120)))
        made += [
            text,
            *(edited(text, rng.choice([0.005, 0.01, 0.02, 0.03, 0.05]), rng) for _ in range(rng.randrange(4))),
        ]
    return [doc(text, rng.choice(["a", "b", "c"])) for text in dict.fromkeys(made)]


def reference(documents: list[Document], spec: Dedup) -> dict[str, str]:
    """Survivors by comparing all pairs of word shingles: what a banding that proposes everything would lead to."""
    names = list(spec.prefer)
    sign = {"longest": -1, "shortest": 1, "any": 0}[spec.keep]
    order = sorted(documents, key=lambda d: (names.index(d.domain) if d.domain in names else len(names), sign * len(d.text), d.sha256))  # fmt: skip
    staying: list[Document] = []
    gone = {}
    for one in order:
        allowed = (other for other in staying if spec.scope == "all" or other.domain == one.domain)
        near = next((o for o in allowed if plain_jaccard(one.text, o.text, spec.ngram) >= spec.threshold), None)
        if near is None:
            staying.append(one)
        else:
            gone[one.sha256] = f"near-duplicate [{near.sha256[:12]}]"
    return gone


SPECS = [Dedup(), Dedup(threshold=0.5, scope="domain"), Dedup(keep="shortest", prefer=("c", "b")), Dedup(ngram=3, keep="any")]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.content_hash))
@pytest.mark.parametrize("seed", range(3))
def test_with_bands_for_every_pair_it_is_brute_force(home: Path, spec: Dedup, seed: int) -> None:
    """Sixty bands of two rows propose all but 10^-9 of the pairs at .5, so survivors and reasons must be the same."""
    documents = family(seed, 25)
    wanted = reference(documents, spec)
    assert near_duplicates(documents, spec.replace(bands=80, rows=2)) == wanted
    assert len(wanted) > 5


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8])
def test_precision_is_one_and_recall_is_the_formulas(home: Path, tmp_path: Path, threshold: float) -> None:
    """The proposals of every pair, by its exact similarity, lie in the binomial interval of the S-curve."""
    documents, spec = family(11, 120), Dedup(threshold=threshold)
    text = {document.sha256: document.text for document in documents}
    short = {sha[:12]: sha for sha in text}
    for gone, reason in near_duplicates(documents, spec).items():
        assert plain_jaccard(text[gone], text[short[reason.split()[-1]]], spec.ngram) >= threshold
    known = sketches.collect(documents, spec, tmp_path)
    pairs = [(i, j) for i in range(len(known)) for j in range(i)]
    similar = np.array([survivors.jaccard(known.shingles[i], known.shingles[j]) for i, j in pairs])
    proposed = np.array([(known.bands[i] == known.bands[j]).any() for i, j in pairs])
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        here = (similar >= low) & (similar < high)
        chances = theory.catch(similar[here], *spec.banding)
        slack = 4 * np.sqrt(np.sum(chances * (1 - chances))) + 2
        assert abs(proposed[here].sum() - chances.sum()) <= slack


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8])
def test_recall_is_what_the_default_banding_promises(tmp_path: Path, threshold: float) -> None:
    """Of pairs at least a tenth above the threshold no fewer than .99 are proposed, most of them just above it."""
    rng = random.Random(6)
    rate, texts = theory.edit_rate(threshold + 0.12, 5), []
    for _ in range(900):
        text = " ".join(f"w{rng.getrandbits(30)}" for _ in range(200))
        texts += [text, edited(text, rate, rng)]
    known = sketches.collect([doc(text) for text in texts], Dedup(threshold=threshold), tmp_path)
    pairs = [(i, i + 1) for i in range(0, len(texts), 2)]
    far = [pair for pair in pairs if survivors.jaccard(*(known.shingles[i] for i in pair)) >= threshold + 0.1]
    proposed = [bool((known.bands[i] == known.bands[j]).any()) for i, j in far]
    assert len(far) > 450 and np.mean(proposed) >= 0.99


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_proposals_lie_on_the_s_curve_where_it_is_steep(tmp_path: Path, threshold: float) -> None:
    """900 pairs about (1/b)^(1/r), where one hash more or less in a band would move the share by a tenth."""
    rng, spec = random.Random(9), Dedup(threshold=threshold)
    bands, rows = spec.banding
    rate, texts = theory.edit_rate(theory.steepest(bands, rows), 5), []
    for _ in range(900):
        text = " ".join(f"w{rng.getrandbits(30)}" for _ in range(200))
        texts += [text, edited(text, rate, rng)]
    known = sketches.collect([doc(text) for text in texts], spec, tmp_path)
    similar = np.array([survivors.jaccard(known.shingles[i], known.shingles[i + 1]) for i in range(0, len(texts), 2)])
    proposed = [bool((known.bands[i] == known.bands[i + 1]).any()) for i in range(0, len(texts), 2)]
    chances = theory.catch(similar, bands, rows)
    assert abs(sum(proposed) - chances.sum()) <= 4 * np.sqrt(np.sum(chances * (1 - chances)))
    assert theory.catch(similar, bands, rows - 1).sum() - chances.sum() > 60


def test_a_chain_keeps_both_ends(home: Path) -> None:
    """A ~ B ~ C with A and C apart: if B goes because of A, C stays; if B stays first, both ends go."""
    words = [f"w{n}" for n in range(120)]
    a, b, c = (" ".join(words[start : start + 100]) for start in (0, 10, 20))
    assert plain_jaccard(a, b, 5) >= 0.8 > 0.7 > plain_jaccard(a, c, 5) and plain_jaccard(b, c, 5) >= 0.8
    one, two, three = doc(a, "first"), doc(b, "second"), doc(c, "third")
    ends = near_duplicates([one, two, three], Dedup(prefer=("first", "second", "third")))
    assert ends == {two.sha256: f"near-duplicate [{one.sha256[:12]}]"}
    middle = near_duplicates([one, two, three], Dedup(prefer=("second",)))
    assert middle == {end.sha256: f"near-duplicate [{two.sha256[:12]}]" for end in (one, three)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SPECS), st.randoms(use_true_random=False))
def test_what_goes_went_for_one_that_stays_whatever_the_order(seed: int, spec: Dedup, rng: random.Random) -> None:
    documents = family(seed, 12)
    gone = near_duplicates(documents, spec)
    kept = {document.sha256[:12] for document in documents if document.sha256 not in gone}
    assert {reason.split()[-1] for reason in gone.values()} <= kept
    shuffled = rng.sample(documents, len(documents))
    assert near_duplicates(shuffled, spec) == gone
    assert near_duplicates([d for d in documents if d.sha256 not in gone], spec) == {}


def test_batches_and_workers_do_not_matter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process with one batch, one with batches of a document or two, and three processes."""
    documents = family(3, 40)
    alone = near_duplicates(documents)
    monkeypatch.setattr(sketches, "BATCH", 700)
    assert near_duplicates(documents) == alone == near_duplicates(documents[::-1], workers=3)
    assert len(alone) > 10


def test_memory_does_not_grow_with_the_text(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,600 documents more of 6 kB each cost less than a tenth of their text, a copy for every fourth included."""
    monkeypatch.setattr(sketches, "BATCH", 1 << 16)

    def stream(number: int) -> Iterator[Document]:
        for at in range(number):
            rng = random.Random(at - at % 4 // 3)
            words = [f"w{rng.getrandbits(30)}" for _ in range(600)]
            yield doc(" ".join(words) + f" {at}")

    def peak(number: int) -> int:
        tracemalloc.start()
        assert len(near_duplicates(stream(number))) == number // 4
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(400)
    assert peak(2000) - peak(400) < 1600 * 600


def test_a_large_family_is_compared_with_what_stays_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 versions of one page all but one go, for 499 comparisons rather than 124,750."""
    calls: list[int] = []
    exact = survivors.jaccard
    monkeypatch.setattr(survivors, "jaccard", lambda one, other: calls.append(1) or exact(one, other))
    page = " ".join(f"w{n}" for n in range(400))
    assert len(near_duplicates([doc(f"{page} version {n}") for n in range(500)])) == 499 == len(calls)


def test_a_form_filled_with_other_numbers_stays(home: Path) -> None:
    """Fifty forms alike but for their numbers have a similarity below the threshold in raw words, and all stay."""
    rng = random.Random(1)
    forms = [
        doc(
            " ".join(
                f"the reading of gauge {rng.randrange(10**6)} on day {day} was {rng.random():.5f}" for day in range(30)
            )
        )
        for _ in range(50)
    ]
    raw = [plain_set(form.text, 5) for form in forms]
    assert max(len(one & other) / len(one | other) for one in raw for other in raw if one is not other) < 0.5
    assert near_duplicates(forms) == {}
    anonymous = [doc(re.sub(r"\d+", "0", form.text) + f" {number}") for number, form in enumerate(forms)]
    assert len(near_duplicates(anonymous)) == 49, "a normaliser that merges numbers would drop all but one"


def test_documents_without_words_stay(home: Path) -> None:
    """Nothing is not similar to nothing; documents of fewer words than a shingle go only where all words agree."""
    few = [
        doc("!" * 40),
        doc("?" * 50),
        doc(""),
        doc("one two three " + "." * 30),
        doc("One, two; three"),
        doc("one two four"),
    ]
    assert near_duplicates(few) == {few[4].sha256: f"near-duplicate [{few[3].sha256[:12]}]"}
    assert near_duplicates([]) == {}


def test_the_same_text_twice_is_not_its_own_copy(home: Path) -> None:
    """Verdicts are by content: to drop one of two equal texts would drop both."""
    text = " ".join(f"w{n}" for n in range(50))
    assert near_duplicates([doc(text), doc(text, "e")]) == {}


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.03, 0.05])
def test_planted_copies_of_real_text_are_caught_as_theory_says(home: Path, repository: list[str], rate: float) -> None:
    """Each file of this repository with a copy: the number caught is in the 99.9 % interval of the sum of chances."""
    rng, spec = random.Random(int(1000 * rate)), Dedup(keep="any")
    texts = [" ".join(plain_words(text)) for text in repository]
    originals = [doc(text, "original") for text in texts]
    already = near_duplicates(originals, spec)
    pairs = [(one, doc(edited(one.text, rate, rng), "copy")) for one in originals if one.sha256 not in already]
    gone = near_duplicates([text for pair in pairs for text in pair], spec.replace(prefer=("original",)))
    caught = sum(copy.sha256 in gone or copy.text == one.text for one, copy in pairs)
    chances = [theory.found(rate, 5, *spec.banding, spec.threshold, len(plain_words(one.text))) for one, _ in pairs]
    number = np.ones(1)
    for chance in chances:
        number = np.convolve(number, [1 - chance, chance])
    low, high = np.searchsorted(np.cumsum(number), [0.0005, 0.9995])
    assert len(pairs) > 150 and low <= caught <= high


# -- the step ---------------------------------------------------------------------------------------------------------


def corpus_of(folder: Path, documents: list[Document]) -> Corpus:
    folder.mkdir()
    with Writer(folder) as writer:
        for document in documents:
            writer.add(document)
    writer.describe({domain: {"duplicates": 0, "short": 0} for domain in {d.domain for d in documents}})
    return Corpus(folder)


def test_the_funnel_counts_what_the_step_drops(home: Path, tmp_path: Path) -> None:
    """And the corpus that is left has the same hash whatever order the documents came in."""
    documents = family(8, 30)
    before = corpus_of(tmp_path / "one", documents)
    told: list[tuple[float, float]] = []
    after = funnel.refine(before, [NearDuplicates()], lambda done, total: told.append((done, total)))
    counts = after.funnel[0]["domains"]
    assert sum(sum(one["reasons"].values()) for one in counts.values()) == len(near_duplicates(documents)) > 10
    assert told[-1] == (sum(len(d.text) for d in documents),) * 2
    again = corpus_of(tmp_path / "two", documents[::-1])
    (tmp_path / "out").mkdir()
    funnel.apply(again, NearDuplicates(), tmp_path / "out")
    assert Corpus(tmp_path / "out").hash == after.hash
    assert not list((home).glob("dedup-*")), "temporary files are gone"


def test_a_preferred_domain_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    before = corpus_of(tmp_path / "one", [doc("some words that are long enough", "a")])
    with pytest.raises(LabError, match="no domain wiki; its domains are a"):
        NearDuplicates(Dedup(prefer=("wiki",))).decide(before)


# -- repeated lines ---------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(["the same seven words on every page", "another line that has seven words", "", "---", "short", "ONE. Two three four five six! seven? eight nine ten"]),
    max_size=8,
).map("\n".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(LINES, min_size=1, max_size=8, unique=True),
    st.sampled_from(["line", "sentence"]),
    st.booleans(),
    st.randoms(),
)
def test_repeated_units_are_those_that_counting_finds(
    texts: list[str], unit: str, keep_one: bool, rng: random.Random
) -> None:
    """Against a counter over the words themselves; what is left joins up to the text, whatever the order."""
    step = RepeatedLines(least=2, unit=unit, words=4, keep_one=keep_one)  # type: ignore[arg-type]
    documents = [doc(text) for text in texts]
    found = step.find(rng.sample(documents, len(documents)))
    units = {d.sha256: [tuple(plain_words(one)) for one in step.split(d.text)] for d in documents}
    holders: dict[tuple[str, ...], list[str]] = {}
    for sha, several in units.items():
        for words in set(several):
            holders.setdefault(words, []).append(sha)
    repeated = {words: min(shas) for words, shas in holders.items() if len(shas) >= 2 and len(words) >= 4}
    assert sorted(found.documents.tolist()) == sorted(len(holders[words]) for words in repeated)
    for document in documents:
        assert "".join(step.split(document.text)) == document.text
        seen: set[tuple[str, ...]] = set()
        left = []
        for text, words in zip(step.split(document.text), units[document.sha256], strict=True):
            home = keep_one and repeated.get(words) == document.sha256 and words not in seen
            seen.add(words)
            if words not in repeated or home:
                left.append(text)
        made = step.strip(document, found)
        assert made.text == "".join(left) and made.units == len(units[document.sha256]) - len(left)
        assert made.characters == len(document.text) - len(made.text)


def test_folding_in_between_does_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [doc(f"a line that is on all of the pages\nand one that is only on page {n}\n") for n in range(30)]
    whole = RepeatedLines(least=30).find(documents)
    monkeypatch.setattr(repeats, "PENDING", 3)
    folded = RepeatedLines(least=30).find(documents[::-1])
    assert len(whole) == 1 and (whole.hashes == folded.hashes).all() and whole.documents.tolist() == [30]
    assert len(RepeatedLines(least=31).find(documents)) == 0


def test_blank_lines_and_short_ones_are_never_repeats() -> None:
    """A document that is half blank lines passes (datatrove#273 and dolma#181 counted those as duplicates)."""
    documents = [doc("\n\n    \nreturn None\n----- ----- -----\n\n" * 20 + f"page {n}") for n in range(20)]
    found = RepeatedLines(least=2).find(documents)
    assert len(found) == 0
    assert RepeatedLines(least=2).strip(documents[0], found).text == documents[0].text


def test_licences_at_the_head_of_sources_are_found() -> None:
    head = "# Licensed under the Apache License, Version 2.0 (the licence);\n"
    documents = [doc(f"{head}def f{n}(x): return x + {n} if x else f{n - 1}(x)\n") for n in range(12)]
    once = RepeatedLines(least=10, keep_one=True)
    left = [once.strip(document, once.find(documents)).text for document in documents]
    assert sum(head in text for text in left) == 1 and all("return x" in text for text in left)


@pytest.mark.parametrize(("wrong", "words"), [({"least": 1}, "use 2 or more"), ({"words": 0}, "blank lines")])
def test_settings_of_repeats_that_cannot_work_are_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(LabError, match=words):
        RepeatedLines(**wrong)  # type: ignore[arg-type]
