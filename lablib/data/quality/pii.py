"""Personal data in text: e-mail addresses, network addresses, telephone and payment-card numbers, counted or replaced.

Patterns find what is written the usual way and nothing else: names and street addresses stay. A card number passes
Luhn's check (ISO/IEC 7812-1 annex B); a network address is one of the public internet, as datatrove has it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.data.editing import Edited, Look
from lablib.data.quality.splitters import Floats
from lablib.specs import digest
from lablib.specs.cleaning import Personal as Kind
from lablib.specs.cleaning import Scrub

VERSION = 1
"""Raised when the same text would be scrubbed otherwise."""
Span = tuple[int, int]

_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_IP = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.]*[0-9])")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,5}(?:[ .-][0-9]{2,5}){1,4}"
    r"|\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}|[0-9]{3}([.-])[0-9]{3}\1[0-9]{4})(?![\w/-])"
)
_CARD = re.compile(r"(?<![\w.-])[2-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![\w-])")


def luhn(digits: str) -> bool:
    """Whether the last digit is right for the others."""
    numbers = [int(digit) for digit in reversed(digits)]
    return sum(n if i % 2 == 0 else sum(divmod(2 * n, 10)) for i, n in enumerate(numbers)) % 10 == 0


def _emails(text: str) -> Iterator[Span]:
    """From each @ outwards, so that the time is linear in the text whatever stands in it."""
    end = 0
    for match in _DOMAIN.finditer(text):
        begun = max(end, match.start() - 64)
        if local := _LOCAL.search(text[begun : match.start()]):
            end = match.end()
            yield begun + local.start(), end


def _ips(text: str) -> Iterator[Span]:
    for match in _IP.finditer(text):
        try:
            if ipaddress.IPv4Address(match[0]).is_global:
                yield match.span()
        except ValueError:
            continue


def _phones(text: str) -> Iterator[Span]:
    """7 digits at least and 15 at most (ITU-T E.164 §6.1)."""
    for match in _PHONE.finditer(text):
        if 7 <= sum(map(str.isdigit, match[0])) <= 15:
            yield match.span()


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if luhn(digits) and len(set(digits)) > 1:
            yield match.span()


@dataclass(frozen=True)
class _Finder:
    spans: Callable[[str], Iterator[Span]]
    placeholder: str
    hint: str
    """A pattern for Rust that anything found has; documents without it are not searched."""


FINDERS: dict[Kind, _Finder] = {
    "email": _Finder(_emails, "[EMAIL]", r"[A-Za-z0-9._%+-]@[A-Za-z0-9-]"),
    "card": _Finder(_cards, "[CARD_NUMBER]", r"[0-9](?:[ -]?[0-9]){12}"),
    "ip": _Finder(_ips, "[IP_ADDRESS]", r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),
    "phone": _Finder(_phones, "[PHONE_NUMBER]", r"\+[0-9]|\([0-9]{3}\)|[0-9]{3}[.-][0-9]{3}[.-][0-9]{4}"),
}


def scrub(text: str, kinds: Sequence[Kind] = ("email", "card", "ip")) -> tuple[str, dict[Kind, int]]:
    """The text with a placeholder for each thing found, and how many there were of each kind. Doing it again finds
    nothing; text without any comes back as it is."""
    counts: dict[Kind, int] = {}
    for kind in kinds:
        spans = list(FINDERS[kind].spans(text))
        counts[kind] = len(spans)
        text = _replaced(text, spans, FINDERS[kind].placeholder) if spans else text
    return text, counts


def _replaced(text: str, spans: list[Span], placeholder: str) -> str:
    kept, last = [], 0
    for start, end in spans:
        kept += [text[last:start], placeholder]
        last = end
    return "".join([*kept, text[last:]])


@dataclass(frozen=True)
class PersonalData:
    """The funnel's step that replaces personal data (`lablib.data.editing.Edit`)."""

    spec: Scrub

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "personal data"

    def key(self) -> str:
        """Of what is replaced; kinds in another order are replaced alike."""
        return digest([VERSION, sorted(self.spec.kinds)])

    def edits(self, before: Corpus, report: Report = silent) -> Callable[[Document], Edited]:
        """`scrub`, for each document by itself."""
        return self.informed()

    @property
    def looks(self) -> tuple[Look, ...]:
        """None."""
        return ()

    def informed(self, seen: Sequence[Path] = (), known: Sequence[Path] = ()) -> Callable[[Document], Edited]:
        """`scrub` too."""
        kinds = [kind for kind in FINDERS if kind in self.spec.kinds]

        def edit(document: Document) -> Edited:
            text, counts = scrub(document.text, kinds)
            return Edited(text, {f"{kind}s": number for kind, number in counts.items()})

        return edit


def personal(texts: pl.Series) -> dict[str, Floats]:
    """``emails``, ``cards``, ``ips``, ``phones`` of each text."""
    found: dict[str, Floats] = {}
    for kind, finder in FINDERS.items():
        counts = np.zeros(len(texts))
        for index in np.flatnonzero(texts.str.contains(finder.hint).to_numpy()):
            counts[index] = sum(1 for _ in finder.spans(texts[int(index)]))
        found[f"{kind}s"] = counts
    return found
