"""The table of signals: a row a document, each signal a column, measured once and stored as Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from lablib.data import cache
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.data.quality.lines import lines
from lablib.data.quality.ngrams import repetition
from lablib.data.quality.pages import host_is_ip, hosts, languages, pages
from lablib.data.quality.pii import personal
from lablib.data.quality.splitters import Floats, ratio, split
from lablib.data.quality.words import wording
from lablib.specs import digest
from lablib.specs.cleaning import Splitter

VERSION = 1
"""Raised when the same text would get other signals, so that stored tables are measured again."""
BATCH = 4_000_000
"""Characters that are measured at once; memory stays at some hundred MB whatever the corpus holds."""
LONGEST = 32_000_000
"""Characters; a longer text is set aside unread."""
BROKEN = 0.01
"""Share of U+FFFD above which a text was no UTF-8."""
LAYOUT = 2
"""Raised when a stored table gets other columns of the same signals."""
SHOWN = 120
"""Characters of each document that the table keeps, so that a person sees what a threshold drops."""
PART = 64
"""Batches of one Parquet file."""


class _Row(NamedTuple):
    """What is known of a document without measuring it."""

    sha256: str
    domain: str
    source: str
    text: str
    bytes: int
    problem: str
    excerpt: str


def measure(documents: Iterable[Document], splitter: Splitter = "whitespace", report: Report = silent) -> pl.DataFrame:
    """The table of these documents, in their order. Those that cannot be measured have a ``problem`` and no signals.

    Columns: sha256, domain, bytes, chars, problem, excerpt, host, language, then the signals that `Clean.limits` names, as
    64-bit floats: counts, or shares from 0 to 1.
    """
    frames = list(_frames(documents, splitter, report))
    return pl.concat(frames) if frames else _frame([], splitter)


def signals(corpus: Corpus, splitter: Splitter = "whitespace", report: Report = silent) -> pl.DataFrame:
    """The table of a corpus, part after part, measured where it is not stored yet."""
    return pl.concat([load(stored(part, splitter, report)) for part in corpus.parts])


def stored(corpus: Corpus, splitter: Splitter, report: Report = silent) -> Path:
    """Folder of the Parquet files of a corpus, or of a part, filled if need be."""

    def fill(folder: Path) -> None:
        held: list[pl.DataFrame] = []
        documents = (document for domain in corpus.domains for document in corpus.documents(domain))
        for number, frame in enumerate(_frames(documents, splitter, report)):
            held.append(frame)
            if len(held) == PART:
                pl.concat(held).write_parquet(folder / f"part-{number:06}.parquet")
                held = []
        pl.concat(held or [_frame([], splitter)]).write_parquet(folder / "part-999999.parquet")

    return cache.made("signals", key(corpus, splitter), fill)


def key(corpus: Corpus, splitter: Splitter) -> str:
    """Name of the folder that a corpus' table belongs in; hosts are of its provenance, so equal texts are not enough."""
    return digest([VERSION, LAYOUT, corpus.identity, splitter])


def load(folder: Path) -> pl.DataFrame:
    """What `stored` wrote."""
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def _frames(documents: Iterable[Document], splitter: Splitter, report: Report) -> Iterator[pl.DataFrame]:
    rows: list[_Row] = []
    size, done = 0, 0
    for document in documents:
        rows.append(_row(document))
        size += len(rows[-1].text)
        if size >= BATCH:
            yield _frame(rows, splitter)
            done += size
            report(done, 0)
            rows, size = [], 0
    if rows:
        yield _frame(rows, splitter)
        report(done + size, 0)


def _row(document: Document) -> _Row:
    """A document looked at; the text of one with a problem is let go."""
    text = document.text
    data = text.encode("utf-8", "surrogatepass")
    problem = _problem(text, len(data))
    name = hashlib.sha256(data).hexdigest()
    return _Row(
        name,
        document.domain,
        document.url or document.source,
        "" if problem else text,
        len(data),
        problem,
        _excerpt(data),
    )


def _excerpt(data: bytes) -> str:
    return " ".join(data[: 4 * SHOWN].decode(errors="replace").replace("\0", " ").split())[:SHOWN]


def _problem(text: str, size: int) -> str:
    """Why a text cannot be measured; empty where it can."""
    if len(text) > LONGEST:
        return f"over {LONGEST // 1_000_000} million characters"
    if not text.strip():
        return "empty"
    if "\0" in text:
        return "holds NUL"
    if text.count("\ufffd") > BROKEN * len(text) or (size > len(text) and _lone(text)):
        return "not UTF-8"
    return ""


def _lone(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _frame(rows: list[_Row], splitter: Splitter) -> pl.DataFrame:
    """The table of one batch."""
    known = pl.DataFrame(
        {name: [getattr(row, name) for row in rows] for name in ("sha256", "domain", "bytes", "problem", "excerpt")},
        schema={
            "sha256": pl.String,
            "domain": pl.String,
            "bytes": pl.Int64,
            "problem": pl.String,
            "excerpt": pl.String,
        },
    )
    host = hosts([row.source for row in rows])
    known = known.with_columns(
        host=pl.Series(host, dtype=pl.String),
        host_is_ip=pl.Series([float(host_is_ip(name)) for name in host], dtype=pl.Float64),
    ).with_row_index("row")
    sound = [index for index, row in enumerate(rows) if not row.problem]
    measured = columns(pl.Series([rows[index].text for index in sound], dtype=pl.String), splitter)
    measured = measured.with_columns(row=pl.Series(sound, dtype=pl.get_index_type()))
    return known.join(measured, on="row", how="left", maintain_order="left").drop("row")


def columns(texts: pl.Series, splitter: Splitter) -> pl.DataFrame:
    """The signals of texts that have no problem: ``chars``, ``language`` and all that is a number."""
    chars = texts.str.len_chars().to_numpy().astype(np.int64)
    words = split(texts, splitter)
    found: dict[str, Floats] = {
        **wording(texts, words),
        **repetition(words, chars),
        **lines(texts, chars),
        **pages(texts),
        **personal(texts),
    }
    found["newlines_per_word"] = ratio(found.pop("newlines"), words.counts)
    codes, found["language_score"] = languages(texts)
    named = {"chars": pl.Series(chars), "language": pl.Series(codes, dtype=pl.String)}
    return pl.DataFrame({**named, **{name: pl.Series(column, dtype=pl.Float64) for name, column in found.items()}})
