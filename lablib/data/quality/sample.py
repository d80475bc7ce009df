"""Signals of a few real documents, in the package, so that the funnel can be played with before there is a corpus.

30 documents of each domain of the corpus ``core`` (those of the smallest hashes), written by
``python -m bench.data.quality --sample``; texts are of the packages and licences that `docs/data.md` lists.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import get_args

import polars as pl

from lablib.specs.cleaning import Splitter

SPLITTERS: tuple[Splitter, ...] = get_args(Splitter)
_TEXT = ("splitter", "sha256", "domain", "problem", "host", "language", "excerpt")


@cache
def sample(splitter: Splitter = "whitespace") -> pl.DataFrame:
    """The table of the sample, with the first characters of each document as ``excerpt``."""
    data = files("lablib.data.quality").joinpath("sample.csv").read_bytes()
    every = pl.read_csv(data, infer_schema=False)
    excerpts = every.filter(splitter=SPLITTERS[0])["excerpt"]
    return (
        every.filter(splitter=splitter)
        .with_columns(excerpts)
        .select(pl.col(_TEXT).fill_null(""), pl.all().exclude(_TEXT).cast(pl.Float64))
    )
