"""Signals of quality against datatrove's own values, sums by hand and plain loops; thresholds, bad input, personal data."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.data.documents import Document
from lablib.data.quality import measure, scrub, table, verdicts
from lablib.data.quality.ngrams import repetition
from lablib.data.quality.sample import SPLITTERS
from lablib.data.quality.splitters import split
from lablib.data.quality.table import columns
from lablib.specs import Clean

GOLDEN = json.loads((Path(__file__).parent / "quality_golden.json").read_text(encoding="utf-8"))["documents"]
SHARES = [limit.signal for limit in Clean.limits().values() if limit.signal in columns(pl.Series(["a"]), "words")]
COUNTS = {"words", "word_length", "hash_ratio", "ellipsis_ratio", "stop_words", "newlines_per_word", "braces",
          "lorem_ipsum", "sentences", "c4_sentences", "emails", "ips", "phones", "cards"}  # fmt: skip


def document(text: str, source: str = "here") -> Document:
    return Document("web", source, "CC0", text)


def signal(text: str, splitter: Any = "whitespace") -> dict[str, Any]:
    return measure([document(text)], splitter).to_dicts()[0]


# the signals themselves


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_real_documents_have_datatroves_values(splitter: Any) -> None:
    """Values that datatrove 0.10.1's own functions gave on the same words, to the last digit that was stored."""
    found = measure([document(row["text"]) for row in GOLDEN], splitter)
    for row, ours in zip(GOLDEN, found.to_dicts(), strict=True):
        theirs = row["signals"][splitter]
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9), row["source"]
    assert len(theirs) == 25


def test_words_by_hand() -> None:
    """Eight words of which one is punctuation, one a number; each splitter its own count."""
    row = signal("The cat, and 12 dogs ... ran #home")
    assert (row["words"], row["stop_words"]) == (7, 1), "'The' is upper case and no stop word for Gopher's list"
    assert row["word_length"] == pytest.approx((3 + 4 + 3 + 2 + 4 + 3 + 5) / 7)
    assert (row["alphabetic_words"], row["hash_ratio"], row["ellipsis_ratio"]) == (6 / 8, 1 / 8, 1 / 8)
    assert signal("don't stop", "words")["words"] == 3 and signal("don't stop", "tokens")["words"] == 3
    assert signal("don't stop", "tokens")["alphabetic_words"] == 3 / 4
    assert signal("हिन्दी में", "words")["words"] == 2, "vowel signs belong to their word"


def test_lines_and_paragraphs_by_hand() -> None:
    text = "- one\n- two\n\n  \nSame line here…\nA longer line of text, which ends well.\n\n- one\n- two\n\nSame line here…"
    row = signal(text)
    assert row["lines"] == 7
    assert row["bullet_lines"] == 4 / 7 and row["ellipsis_lines"] == 2 / 7 and row["terminal_lines"] == 1 / 7
    assert row["short_lines"] == 6 / 7 and row["duplicate_lines"] == 3 / 7
    assert row["duplicate_line_chars"] == (5 + 5 + 15) / len(text)
    assert row["duplicate_paragraphs"] == 1 / 4 and row["duplicate_paragraph_chars"] == len("- one\n- two") / len(text)


def test_c4_by_hand() -> None:
    """Only the second line stays under C4's rules: the others are short, name a policy, javascript, or end in no mark."""
    text = "\n".join(
        ["This line has an end. But not [citation needed]", "This line has five words. It ends!  Does it?[3]",
         "Too short.", "Please enable JavaScript to view this page.", "By using this you accept our Terms of Use.",
         "A line that just goes on and on", "It trails off after many words...", "x" * 1001 + " and a few more words."]
    )  # fmt: skip
    row = signal(text)
    assert row["c4_sentences"] == 3
    assert row["sentences"] == 1 + 3 + 1 + 1, "end marks of any line of three words, one at least"
    assert row["javascript_lines"] == 1 / 8 and row["policy_lines"] == 1 / 8
    assert signal("a {b} Lorem  lorem IPSUM")["braces"] == 2 and signal("a lorem IPSUM b")["lorem_ipsum"] == 1


def test_language() -> None:
    english = signal("The committee agreed that the report should be published before the end of the year.")
    french = signal("Le comité a décidé que le rapport serait publié avant la fin de l'année.")
    assert english["language"] == "en" and english["language_score"] > 0.65
    assert french["language"] == "fr" and french["language_score"] > 0.65
    assert signal("1234 !!!")["language_score"] < 0.65


# against plain loops


def plain(words: list[str], chars: int) -> dict[str, float]:
    """Table A1 as datatrove counts it, one word after the other."""
    found = {}
    for n in range(2, 5):
        grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        top, count = Counter(grams).most_common(1)[0] if grams else ("", 0)
        found[f"top_{n}gram"] = min(1.0, len(top) * count / chars)
    for n in range(5, 11):
        seen, covered, i = set(), 0, 0
        while i + n <= len(words):
            gram = tuple(words[i : i + n])
            covered += sum(map(len, gram)) if gram in seen else 0
            i += n if gram in seen else 1
            seen.add(gram)
        found[f"duplicate_{n}gram"] = covered / chars
    return found


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=80), min_size=1, max_size=4))
def test_repetition_is_that_of_the_plain_loop(texts: list[list[str]]) -> None:
    """Few kinds of words, so that n-grams overlap and repeat in every way; several documents at once."""
    found = columns(pl.Series([" ".join(words) for words in texts]), "whitespace").to_dicts()
    for words, ours in zip(texts, found, strict=True):
        expected = plain(words, len(" ".join(words)))
        assert {name: ours[name] for name in expected} == pytest.approx(expected)


def test_repetition_sees_the_documents_apart() -> None:
    """Planted: the same words as one document give other values, so the property above can fail."""
    words = split(pl.Series(["a b c d e f g", "a b c d e f g"]), "whitespace")
    assert repetition(words, np.array([13, 13]))["duplicate_5gram"].tolist() == [0, 0]
    joined = replace(words, documents=1, document=np.zeros(14, np.int64))
    assert repetition(joined, np.array([26]))["duplicate_5gram"][0] > 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=5), st.sampled_from(SPLITTERS))
def test_any_text_is_measured_in_range_and_alone_as_among_others(texts: list[str], splitter: Any) -> None:
    together = measure(map(document, texts), splitter)
    assert together.equals(pl.concat([measure([document(text)], splitter) for text in texts]))
    for name in {*SHARES} - {"quality"}:
        column = together[name].drop_nulls()
        top = np.inf if name in COUNTS else 1
        assert column.is_between(0, top).all() and not column.is_nan().any(), name
    assert ((together["problem"] != "") == together["words"].is_null()).all()


BLOCK = st.lists(st.sampled_from(["one line", "another line of text.", "- third", "x" * 40]), min_size=1, max_size=12)


@given(BLOCK, st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_blank_lines_are_no_lines(lines: list[str], blanks: int) -> None:
    """Half a document of blank lines, with white space in them, changes no count of lines (datatrove#273)."""
    tight, loose = signal("\n".join(lines)), signal(("\n \t" + "\n" * blanks).join(lines))
    names = ("lines", "bullet_lines", "terminal_lines", "short_lines", "duplicate_lines", "sentences")
    assert {name: loose[name] for name in names} == {name: tight[name] for name in names}


def test_counting_blank_lines_would_be_seen() -> None:
    """Planted: the rule as datatrove has it calls a document of distinct lines repetitive once lines of spaces part them."""
    lines = " \n".join(f"line {number}\n" for number in range(20))
    parts = re.split("\n+", lines)
    assert (len(parts) - len(set(parts))) / len(parts) > 0.3
    assert signal(lines)["duplicate_lines"] == 0


# bad input


def test_bad_input_is_counted_and_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "LONGEST", 1_000_000)
    texts = [
        "",
        " \n\t ",
        "fine text\0with NUL",
        "lone \ud800 surrogate",
        "�� mostly � broken",
        "x" * 1_000_001,
        "sound",
    ]
    found = measure(map(document, texts))
    assert found["problem"].to_list() == [
        "empty", "empty", "holds NUL", "not UTF-8", "not UTF-8", "over 1 million characters", ""
    ]  # fmt: skip
    told = verdicts(found, Clean())
    assert {effect.says: effect.docs for effect in told.effects} == {
        "unreadable: empty": 2, "unreadable: holds NUL": 1, "unreadable: not UTF-8": 2, "unreadable: over 1 million characters": 1
    }  # fmt: skip
    assert told.kept.tolist() == [False] * 6 + [True]
    assert measure([]).columns == found.columns and verdicts(measure([]), Clean(preset="fineweb")).kept.size == 0


@pytest.mark.parametrize("text", ["x" * 20_000_000, "a@" * 2_000_000, "1." * 2_000_000, "4-" * 2_000_000])
def test_one_huge_line_is_measured(text: str) -> None:
    """20 MB without a space, and the runs that a careless pattern takes quadratic time over."""
    row = signal(text)
    assert (row["problem"], row["lines"], row["words"], row["emails"]) == ("", 1, 1, 0)
    assert scrub(text)[0] == text


# personal data


def test_personal_data_by_hand() -> None:
    """Visa's, Mastercard's and American Express's published test numbers pass Luhn; one digit off does not."""
    text = (
        "Mail jane.doe+x@mail.example.org or a@b, call +1 212 555 0199, (212) 555-0199 or 212-555-0199, "
        "from 8.8.8.8, not 192.168.0.1, 1.2.3.4.5 or 999.1.1.1; cards 4111 1111 1111 1111, 5555555555554444, "
        "378282246310005, never 4111 1111 1111 1112 or 4444444444444444."
    )
    row = signal(text)
    assert (row["emails"], row["ips"], row["phones"], row["cards"]) == (1, 1, 3, 3)
    clean, counts = scrub(text)
    assert counts == {"email": 1, "card": 3, "ip": 1}
    assert (
        clean.startswith("Mail [EMAIL] or a@b, call +1 212 555 0199") and "from [IP_ADDRESS], not 192.168.0.1" in clean
    )
    assert "cards [CARD_NUMBER], [CARD_NUMBER], [CARD_NUMBER], never 4111 1111 1111 1112" in clean
    assert scrub(text, ("phone",))[1] == {"phone": 3}


PIECES = [
    "jane@mail.org",
    "@",
    "x.y@z.co",
    "8.8.8.8",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    " ",
    ".",
    "-",
    "a",
    "1",
    "\n",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(deadline=None)
def test_scrubbing_twice_finds_nothing(text: str) -> None:
    once, counts = scrub(text)
    again, none = scrub(once)
    assert again == once and not any(none.values())
    row = columns(pl.Series([text]), "words").to_dicts()[0] if text.strip() else {"emails": 0}
    assert row["emails"] == counts["email"], "the column counts what is replaced"
    assert (once == text) == (not any(counts.values()))
