"""`Clean`: which documents of a corpus stay, as thresholds on signals. Each names its rule and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from lablib.specs.base import Spec

Splitter = Literal["whitespace", "words", "tokens"]
"""What counts as a word: runs without white space; Unicode ``\\w+`` runs; or ``\\w+`` runs and each punctuation mark for
itself, as spaCy's tokens are that datatrove counts. On the same documents this choice alone moves what Gopher's rules
keep from 69 % to 10 %."""
Preset = Literal["none", "gopher", "c4", "fineweb"]
Personal = Literal["email", "ip", "phone", "card"]
"""Personal data that has a form: `lablib.data.quality.pii`."""

GOPHER = "Gopher, arXiv 2112.11446 §A.1.1"
REPETITION = "Gopher, arXiv 2112.11446 table A1"
C4 = "C4, arXiv 1910.10683 §2.2; numbers of tensorflow_datasets c4_utils.py"
FINEWEB = "FineWeb, arXiv 2406.17557 §3.6"
DATATROVE = "FineWeb's code, datatrove 0.10.1 fineweb_quality_filter.py"
CCNET = "FineWeb, arXiv 2406.17557 §3.3: fastText at 0.65"
OURS = "this lab's own; off unless it is set"


class Limit(NamedTuple):
    """What one threshold means."""

    signal: str
    """The column that it bounds."""
    side: Literal["min", "max"]
    """``min`` drops what lies below it, ``max`` what lies above; the threshold itself passes."""
    says: str
    """Why a document goes, in a few words."""
    source: str


class Rule(NamedTuple):
    """A threshold that is set."""

    name: str
    """Field of `Clean`."""
    limit: Limit
    value: float


def _least(signal: str, says: str, source: str) -> Any:
    return Field(None, ge=0, json_schema_extra={"limit": Limit(signal, "min", says, source)._asdict()})


def _most(signal: str, says: str, source: str) -> Any:
    return Field(None, ge=0, json_schema_extra={"limit": Limit(signal, "max", says, source)._asdict()})


class Clean(Spec):
    """Thresholds of the signals in `lablib.data.quality`; None leaves a rule out. A preset sets its own rules, and a
    field that is given goes before the preset. Rules are asked in the order of the fields."""

    preset: Preset = "none"
    off: tuple[str, ...] = ()
    """Thresholds of the preset that are left out; giving one as None puts it here."""
    splitter: Splitter = "whitespace"

    blocked_hosts: tuple[str, ...] = ()
    """Hosts that are dropped with all below them, of documents whose source is a web address."""
    max_host_is_ip: float | None = _most("host_is_ip", "url: the host is a bare address", OURS)
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that stay; empty keeps every language."""
    min_language_score: float | None = _least("language_score", "language: not sure", CCNET)

    min_words: float | None = _least("words", "gopher: too few words", GOPHER)
    max_words: float | None = _most("words", "gopher: too many words", GOPHER)
    min_word_length: float | None = _least("word_length", "gopher: words too short", GOPHER)
    max_word_length: float | None = _most("word_length", "gopher: words too long", GOPHER)
    max_hash_ratio: float | None = _most("hash_ratio", "gopher: too many hashes", GOPHER)
    max_ellipsis_ratio: float | None = _most("ellipsis_ratio", "gopher: too many ellipses", GOPHER)
    max_bullet_lines: float | None = _most("bullet_lines", "gopher: bullet lines", GOPHER)
    max_ellipsis_lines: float | None = _most("ellipsis_lines", "gopher: lines that end in an ellipsis", GOPHER)
    min_alphabetic_words: float | None = _least("alphabetic_words", "gopher: words without letters", GOPHER)
    min_stop_words: float | None = _least("stop_words", "gopher: too few stop words", GOPHER)

    max_duplicate_lines: float | None = _most("duplicate_lines", "repetition: lines", REPETITION)
    max_duplicate_line_chars: float | None = _most("duplicate_line_chars", "repetition: text in lines", REPETITION)
    max_duplicate_paragraphs: float | None = _most("duplicate_paragraphs", "repetition: paragraphs", REPETITION)
    max_duplicate_paragraph_chars: float | None = _most("duplicate_paragraph_chars", "repetition: text in paragraphs", REPETITION)  # fmt: skip
    max_top_2gram: float | None = _most("top_2gram", "repetition: one 2-gram", REPETITION)
    max_top_3gram: float | None = _most("top_3gram", "repetition: one 3-gram", REPETITION)
    max_top_4gram: float | None = _most("top_4gram", "repetition: one 4-gram", REPETITION)
    max_duplicate_5gram: float | None = _most("duplicate_5gram", "repetition: 5-grams", REPETITION)
    max_duplicate_6gram: float | None = _most("duplicate_6gram", "repetition: 6-grams", REPETITION)
    max_duplicate_7gram: float | None = _most("duplicate_7gram", "repetition: 7-grams", REPETITION)
    max_duplicate_8gram: float | None = _most("duplicate_8gram", "repetition: 8-grams", REPETITION)
    max_duplicate_9gram: float | None = _most("duplicate_9gram", "repetition: 9-grams", REPETITION)
    max_duplicate_10gram: float | None = _most("duplicate_10gram", "repetition: 10-grams", REPETITION)

    max_braces: float | None = _most("braces", "c4: curly brackets", C4)
    max_lorem_ipsum: float | None = _most("lorem_ipsum", "c4: lorem ipsum", C4)
    max_javascript_lines: float | None = _most("javascript_lines", "c4: lines that name javascript", C4)
    max_policy_lines: float | None = _most("policy_lines", "c4: lines of terms and cookies", C4)
    min_c4_sentences: float | None = _least("c4_sentences", "c4: too few sentences in its lines", C4)
    min_sentences: float | None = _least("sentences", "c4: too few sentences", "C4 as FineWeb runs it: any line end, 3 words a line, 5 sentences; datatrove 0.10.1 c4_filters.py")  # fmt: skip

    min_terminal_lines: float | None = _least("terminal_lines", "fineweb: lines without an end mark", FINEWEB)
    max_short_lines: float | None = _most("short_lines", "fineweb: short lines", FINEWEB)
    max_repeated_line_chars: float | None = _most("repeated_line_chars", "fineweb: repeated lines", DATATROVE + ", which has 0.01 where the paper's text says 0.1")  # fmt: skip
    max_newlines_per_word: float | None = _most("newlines_per_word", "fineweb: a list", DATATROVE)

    max_emails: float | None = _most("emails", "pii: e-mail addresses", OURS)
    max_ips: float | None = _most("ips", "pii: network addresses", OURS)
    max_phones: float | None = _most("phones", "pii: telephone numbers", OURS)
    max_cards: float | None = _most("cards", "pii: payment cards", OURS)
    max_profanity: float | None = _most("profanity", "toxicity: listed words", "share of the words that are on the list of npm:cuss; the threshold is yours")  # fmt: skip
    min_quality: float | None = _least("quality", "classifier: low score", OURS)

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """The preset's thresholds under the given ones."""
        if not isinstance(data, dict) or data.get("preset", "none") not in PRESETS:
            return data
        base = PRESETS[data.get("preset", "none")]
        asked = {*data.get("off", ()), *(name for name in base if name in data and data[name] is None)}
        off = sorted(name for name in asked if data.get(name) is None)
        if wrong := [name for name in off if name not in base]:
            raise ValueError(f"off: {', '.join(wrong)} is no threshold of preset {data.get('preset', 'none')!r}")
        return {**{name: value for name, value in base.items() if name not in off}, **data, "off": tuple(off)}

    @classmethod
    def limits(cls) -> dict[str, Limit]:
        """Every threshold there is, by field, in the order in which rules are asked."""
        described = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return {name: Limit(**extra["limit"]) for name, extra in described.items() if isinstance(extra, dict)}  # type: ignore[arg-type]

    def rules(self) -> Iterator[Rule]:
        """The thresholds that are set, in order."""
        for name, limit in self.limits().items():
            if (value := getattr(self, name)) is not None:
                yield Rule(name, limit, value)


_GOPHER: dict[str, Any] = {
    "min_words": 50, "max_words": 100_000, "min_word_length": 3, "max_word_length": 10,
    "max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3,
    "min_alphabetic_words": 0.8, "min_stop_words": 2,
    "max_duplicate_lines": 0.30, "max_duplicate_line_chars": 0.20,
    "max_duplicate_paragraphs": 0.30, "max_duplicate_paragraph_chars": 0.20,
    "max_top_2gram": 0.20, "max_top_3gram": 0.18, "max_top_4gram": 0.16,
    "max_duplicate_5gram": 0.15, "max_duplicate_6gram": 0.14, "max_duplicate_7gram": 0.13,
    "max_duplicate_8gram": 0.12, "max_duplicate_9gram": 0.11, "max_duplicate_10gram": 0.10,
}  # fmt: skip
_PAGES: dict[str, Any] = {"max_braces": 0, "max_lorem_ipsum": 0}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "gopher": _GOPHER,
    "c4": {**_PAGES, "min_c4_sentences": 3},
    "fineweb": {
        **_GOPHER,
        **_PAGES,
        "min_sentences": 5,
        "min_terminal_lines": 0.12,
        "max_short_lines": 0.67,
        "max_repeated_line_chars": 0.01,
        "max_newlines_per_word": 0.3,
        "languages": ("en",),
        "min_language_score": 0.65,
    },
}
"""Thresholds of each preset. ``c4`` decides about documents as C4 does; that C4 also cuts lines out of those that stay
is no part of it."""


class Scrub(Spec):
    """Personal data in documents that stay is replaced by placeholders such as ``[EMAIL]``."""

    kinds: tuple[Personal, ...] = Field(default=("email", "card", "ip"), min_length=1)
    """Telephone numbers are left out: other numbers look like them."""
