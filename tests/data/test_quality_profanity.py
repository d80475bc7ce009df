"""The list of profane words: read from its package's form, counted as whole words, and a threshold like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from lablib.data import packages
from lablib.data.corpus import Corpus, Writer
from lablib.data.documents import Document
from lablib.data.quality import Quality, measure, profanity
from lablib.data.quality.profanity import Lexicon, parsed, with_profanity
from lablib.specs import Clean, LabError

SOURCE = """
/** Map of English profane words to a rating of sureness. */
export const cuss = {
  adult: 0,
  angry: 1,
  blasted: 2,
  'dratted fool': 2,
  "confound-it": 2,
}
"""


def test_only_the_sure_words_of_the_map_are_taken() -> None:
    assert parsed(SOURCE).words == {"blasted"}, "phrases are no words"


@pytest.mark.parametrize(
    ("text", "share"),
    [("Blasted! BLASTED thing, is it", 2 / 5), ("unblasted blastedly", 0), ("", 0), ("éblasted, so blasted", 1 / 3)],
)
def test_whole_words_in_any_case_are_counted(text: str, share: float) -> None:
    assert parsed(SOURCE).shares([text, "other words"]).tolist() == [pytest.approx(share), 0]


def test_the_share_is_of_all_words_and_is_null_for_an_unknown_document() -> None:
    documents = [Document("d", "s", "", text) for text in ("one blasted word of five", "none at all here today")]
    table = with_profanity(measure(documents), documents[:1], parsed(SOURCE))
    assert table["profanity"].to_list() == [0.2, None]


def test_a_threshold_drops_and_the_list_is_part_of_the_key(tmp_path: Path, home: Path) -> None:
    with Writer(tmp_path) as writer:
        for text in ("one blasted word among five of them in all", "and a text in which there is nothing of the kind"):
            writer.add(Document("d", "s", "", text))
    writer.describe({"d": {}})
    step = Quality(Clean(max_profanity=0.05), lexicon=parsed(SOURCE))
    assert list(step.decide(Corpus(tmp_path)).values()) == ["toxicity: listed words"]
    assert step.key() != Quality(step.clean, lexicon=Lexicon(frozenset({"other"}))).key()
    assert Quality(Clean(min_words=1), lexicon=step.lexicon).key() == Quality(Clean(min_words=1)).key()
    with pytest.raises(LabError, match="with_profanity for a list's"):
        Quality(step.clean).decide(Corpus(tmp_path))


def test_the_public_list_where_npm_or_the_file_is_at_hand() -> None:
    """Fetched once, 25 kB: some 1,200 of its 1,770 entries are sure words; mild and plain ones are not among them."""
    if packages.missing("npm") and not profanity.CUSS.path.is_file():
        pytest.skip("neither npm nor the package's file is here")
    listed = profanity.lexicon().words
    assert 1000 < len(listed) < 1255 and not listed & {"africa", "adult", "angry", "american", "church", "die"}
