"""Signals of a document's lines and paragraphs: Gopher's, C4's and FineWeb's. Blank lines are never counted, and so never
as duplicates (datatrove#273, dolma#181)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lablib.data.quality.splitters import Floats, Ints, ratio

POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
"""C4's, from tensorflow_datasets c4_utils.py."""
SHORT = 30
"""Characters of a line that FineWeb calls short (arXiv 2406.17557 §3.6)."""
LONGEST_WORD = 1000
"""Characters; C4 drops a line with a longer word."""
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_SENTENCE = r"""[.!?…。！？]+["'”’)\]]*(?:\s|$)"""


def lines(texts: pl.Series, chars: Ints) -> dict[str, Floats]:
    """Shares of lines that are bullets, end in an ellipsis or a full stop, are short, name javascript or a policy;
    sentences in the lines that C4 keeps; repeated lines and paragraphs."""
    every = pl.DataFrame({"text": texts.str.split("\n")}).with_row_index("document").explode("text")
    every = every.with_columns(bare=pl.col("text").str.strip_chars(), hash=pl.col("text").hash())
    frame = every.with_columns(blank=pl.col("bare") == "", chars=pl.col("text").str.len_chars())
    shown = frame.filter(~pl.col("blank"))
    sums = _summed(shown, len(texts))
    counted = sums["lines"]
    shares = ("bullet_lines", "ellipsis_lines", "terminal_lines", "short_lines", "javascript_lines", "policy_lines")
    newlines = texts.str.count_matches("\n", literal=True).to_numpy().astype(np.float64)
    return {
        "lines": counted,
        **{name: ratio(sums[name], counted) for name in shares},
        "sentences": sums["sentences"],
        "c4_sentences": sums["c4_sentences"],
        "newlines": newlines,
        "duplicate_lines": ratio(sums["duplicate"], counted),
        "duplicate_line_chars": ratio(sums["duplicate_chars"], chars),
        "repeated_line_chars": ratio(sums["duplicate_chars"], chars - newlines),
        **_paragraphs(frame, chars, len(texts)),
    }


def _summed(shown: pl.DataFrame, documents: int) -> dict[str, Floats]:
    """Sums over each document's lines, 0 for one without any."""
    duplicate = _repeated(shown["document"].to_numpy(), shown["hash"].to_numpy())
    marked = shown.with_columns(
        duplicate=pl.Series(duplicate, dtype=pl.Boolean), lengthy=pl.Series(_lengthy(shown), dtype=pl.Boolean)
    ).with_columns(*_flags())
    names = ("bullet_lines", "ellipsis_lines", "terminal_lines", "short_lines", "javascript_lines", "policy_lines")
    sums = marked.group_by("document").agg(
        pl.len().alias("lines"),
        *(pl.col(name).sum() for name in (*names, "duplicate")),
        (pl.col("chars") * pl.col("duplicate")).sum().alias("duplicate_chars"),
        pl.col("found").filter(pl.col("plain") & (pl.col("words") >= 3)).sum().alias("sentences"),
        pl.col("found").filter(pl.col("plain") & pl.col("ended") & (pl.col("words") >= 5)).sum().alias("c4_sentences"),
    )
    at = sums["document"].to_numpy()
    full: dict[str, Floats] = {}
    for name in sums.columns[1:]:
        full[name] = np.zeros(documents)
        full[name][at] = sums[name].to_numpy()
    return full


def _flags() -> list[pl.Expr]:
    """What is true of one line."""
    bare, lower = pl.col("bare"), pl.col("bare").str.to_lowercase()
    dots = bare.str.ends_with("...")
    script, policy = lower.str.contains("javascript", literal=True), lower.str.contains_any(list(POLICY))
    uncited = bare.str.replace_all(_CITATION, "")
    ended = uncited.str.contains(r"""[.?!"]$""") & ~uncited.str.ends_with("...")
    return [
        (bare.str.starts_with("•") | bare.str.starts_with("-")).alias("bullet_lines"),
        (dots | bare.str.ends_with("…")).alias("ellipsis_lines"),
        bare.str.contains(r"\p{Sentence_Terminal}$").alias("terminal_lines"),
        (pl.col("chars") <= SHORT).alias("short_lines"),
        script.alias("javascript_lines"),
        policy.alias("policy_lines"),
        ended.alias("ended"),
        (~(script | policy | pl.col("lengthy"))).alias("plain"),
        uncited.str.count_matches(r"\S+").alias("words"),
        pl.max_horizontal(uncited.str.count_matches(_SENTENCE), 1).alias("found"),
    ]


def _lengthy(shown: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether a line holds a word of over `LONGEST_WORD` characters; only lines so long are looked at."""
    found = np.zeros(len(shown), bool)
    for index in np.flatnonzero(shown["chars"].to_numpy() > LONGEST_WORD).tolist():
        found[index] = max(map(len, shown["bare"][index].split()), default=0) > LONGEST_WORD
    return found


def _repeated(document: npt.NDArray[np.generic], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether the same hash came before in the same document."""
    owned = hashes ^ (document.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return ~pl.Series(owned).is_first_distinct().to_numpy()


def _paragraphs(frame: pl.DataFrame, chars: Ints, documents: int) -> dict[str, Floats]:
    """Repeated paragraphs; a blank line ends one, whatever white space is in it."""
    document, blank = frame["document"].to_numpy(), frame["blank"].to_numpy()
    shown = np.flatnonzero(~blank)
    if not len(shown):
        return {"duplicate_paragraphs": np.zeros(documents), "duplicate_paragraph_chars": np.zeros(documents)}
    new = np.concatenate([[True], (np.diff(shown) > 1) | (np.diff(document[shown]) > 0)])
    starts = np.flatnonzero(new)
    place = (np.arange(len(shown)) - starts[np.cumsum(new) - 1]).astype(np.uint64)
    mixed = frame["hash"].to_numpy()[shown] * (place * np.uint64(2) + np.uint64(1))
    owner = document[shown][starts]
    sizes = np.diff(np.append(starts, len(shown)))
    length = np.add.reduceat(frame["chars"].to_numpy()[shown].astype(np.int64), starts) + sizes - 1
    again = _repeated(owner, np.add.reduceat(mixed, starts))
    count = lambda weights: np.bincount(owner, weights, minlength=documents)  # noqa: E731
    return {
        "duplicate_paragraphs": ratio(count(again), count(np.ones(len(owner)))),
        "duplicate_paragraph_chars": ratio(count(again * length), chars),
    }
