"""Near-duplicates against brute force over the words themselves, against the S-curve, and against shuffling."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import doc, edited, family, plain_jaccard, plain_set, plain_words

from lablib.data import funnel
from lablib.data.corpus import Corpus, Writer
from lablib.data.dedup import (
    NearDuplicates,
    near_duplicates,
    sketches,
    survivors,
    theory,
)
from lablib.data.documents import Document
from lablib.specs import LabError
from lablib.specs.dedup import Dedup


@pytest.fixture(scope="module")
def repository() -> list[str]:
    """Real text."""
    return plain.repository()


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
        assert plain_jaccard(text[gone], text[short[reason[-13:-1]]], spec.ngram) >= threshold
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
    """2,000 pairs about (1/b)^(1/r), where a hash less in each band would be seen."""
    rng, spec = random.Random(9), Dedup(threshold=threshold)
    bands, rows = spec.banding
    rate, texts = theory.edit_rate(theory.steepest(bands, rows), 5), []
    for _ in range(2000):
        text = " ".join(f"w{rng.getrandbits(30)}" for _ in range(150))
        texts += [text, edited(text, rate, rng)]
    known = sketches.collect([doc(text) for text in texts], spec, tmp_path)
    similar = np.array([survivors.jaccard(known.shingles[i], known.shingles[i + 1]) for i in range(0, len(texts), 2)])
    proposed = [bool((known.bands[i] == known.bands[i + 1]).any()) for i in range(0, len(texts), 2)]
    chances = theory.catch(similar, bands, rows)
    sigma = float(np.sqrt(np.sum(chances * (1 - chances))))
    assert abs(sum(proposed) - chances.sum()) <= 4 * sigma
    assert theory.catch(similar, bands, rows - 1).sum() - chances.sum() > 6 * sigma


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
    assert {reason[-13:-1] for reason in gone.values()} <= kept
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
    """1,600 documents more of 6 kB each cost less than a tenth of their text, with a copy among every four."""
    monkeypatch.setattr(sketches, "BATCH", 1 << 16)

    def stream(number: int) -> Iterator[Document]:
        for at in range(number):
            page = random.Random(at - at % 4 // 3).randbytes(2800).hex(" ", 4)
            yield doc(f"{page} {at}")

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
    assert (sum(len(d.text) for d in documents),) * 2 in told
    again = corpus_of(tmp_path / "two", documents[::-1])
    (tmp_path / "out").mkdir()
    funnel.apply(again, NearDuplicates(), tmp_path / "out")
    assert Corpus(tmp_path / "out").hash == after.hash
    assert not list((home).glob("dedup-*")), "temporary files are gone"


def test_a_preferred_domain_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    before = corpus_of(tmp_path / "one", [doc("some words that are long enough", "a")])
    with pytest.raises(LabError, match="no domain wiki; its domains are a"):
        NearDuplicates(Dedup(prefer=("wiki",))).decide(before)
