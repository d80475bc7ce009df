"""The quality classifier on labels that are known, its figures against scipy and a published interval, and real mail."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from lablib.data.documents import Document
from lablib.data.quality import Quality, classifier, measure, verdicts
from lablib.data.quality.classifier import Classifier, features, figures, held_out, train, with_scores
from lablib.data.sources import mail
from lablib.specs import Clean, LabError

GOOD = ("theorem proof lemma integer therefore", "we show that the sum of two even numbers is even")
BAD = ("click here buy now cheap offer", "limited time offer free free money winner")


def documents(count: int, seed: int, labels: tuple[str, str] = ("good", "bad")) -> list[Document]:
    """Documents of random words from one of two vocabularies that share nothing but a few common words."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        kind = number % 2
        words = [*" ".join((GOOD, BAD)[kind]).split(), "and", "with", "it"]
        text = f"{number} " + " ".join(rng.choices(words, k=40))
        made.append(Document("web", str(number), "CC0", text, labels[kind]))
    return made


def test_it_learns_what_can_be_learned_and_no_more() -> None:
    """Planted: with labels drawn by chance the same code finds nothing, so a high figure means something."""
    _, right = held_out(documents(400, 1), "good")
    assert right.auc.value == 1 and right.accuracy.low > 0.97
    rng = random.Random(2)
    chance = [Document(d.domain, d.source, d.licence, d.text, rng.choice(["good", "bad"])) for d in documents(400, 1)]
    _, none = held_out(chance, "good")
    assert none.auc.low < 0.5 < none.auc.high and none.accuracy.low < 0.5 < none.accuracy.high


def test_auc_is_mann_whitneys_and_ties_count_half() -> None:
    rng = np.random.default_rng(3)
    good = rng.random(60) < 0.4
    scores = np.round(rng.normal(good.astype(float), 1), 1)
    expected = mannwhitneyu(scores[good], scores[~good]).statistic / (good.sum() * (~good).sum())
    assert figures(scores, good).auc.value == pytest.approx(expected)
    assert figures(np.full(60, 0.7), good).auc.value == 0.5


def test_the_auc_interval_covers() -> None:
    """Scores of two normals one apart have an AUC of Φ(1/√2) = 0.7602; about 95 of 100 intervals must hold it."""
    rng, held = np.random.default_rng(4), 0
    good = np.arange(120) < 60
    for _ in range(200):
        auc = figures(rng.normal(good.astype(float), 1), good).auc
        held += auc.low <= 0.76025 <= auc.high
    assert 180 <= held <= 199


def test_features_are_of_unit_length_and_know_order() -> None:
    """Pairs of words tell "a b" from "b a"; an empty text has no feature."""
    rows = features(["dog bites man", "man bites dog", ""])
    assert np.asarray(rows.multiply(rows).sum(1)).ravel() == pytest.approx([1, 1, 0])
    assert (rows[0] @ rows[1].T).toarray()[0, 0] == pytest.approx(3 / 5)


def test_scores_are_a_column_that_a_threshold_reads(tmp_path: Path) -> None:
    docs = documents(60, 5)
    trained = train([d.text for d in docs], [d.label == "good" for d in docs])
    table = with_scores(measure(docs), docs, trained)
    told = verdicts(table, Clean(min_quality=0.5))
    assert told.kept.tolist() == [d.label == "good" for d in docs]
    trained.save(tmp_path / "weights.npz")
    again = Classifier.load(tmp_path / "weights.npz")
    assert again.key == trained.key and again.scores(["free money"]) == trained.scores(["free money"])
    bounded = Clean(min_quality=0.5)
    assert Quality(bounded, trained).key() != Quality(bounded).key()
    assert Quality(Clean(), trained).key() == Quality(Clean()).key(), "an unused classifier decides nothing"


def test_one_kind_is_refused() -> None:
    with pytest.raises(LabError, match="these are all good"):
        train(["a", "b"], [True, True])
    with pytest.raises(LabError, match="Two documents of each kind"):
        figures(np.array([0.1, 0.9]), [True, False])


def test_a_missing_source_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail.packages, "missing", lambda program: True)
    with pytest.raises(LabError, match="labelled documents cannot be had: there is no npm"):
        classifier.learned(mail.MAIL, "ham")


@pytest.mark.slow
@pytest.mark.skipif(bool(mail.MAIL.unavailable()), reason=f"no labelled mail: {mail.MAIL.unavailable()}")
def test_real_mail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half of the SpamAssassin corpus told apart after learning from the other half, stored and read again."""
    mail.MAIL.fetch()
    monkeypatch.setattr(classifier.cache, "folder", lambda kind, key: tmp_path / kind / key)
    trained, told = classifier.learned(mail.MAIL, "ham")
    assert told.auc.low > 0.98 and told.accuracy.low > 0.95 and told.good + told.bad > 2500
    again, same = classifier.learned(mail.MAIL, "ham")
    assert again.key == trained.key and same == told
