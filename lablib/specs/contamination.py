"""`Decontaminate`: which benchmarks training text is searched for, and how alike counts as found."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.data import Task

BENCHMARKS = ("mmlu", "humaneval", "gsm8k", "math", "bbh", "ifeval", "agieval")
"""Public benchmarks that the registry knows by name; a report lists each of them as present or missing."""
FILE_ENDS = (".jsonl", ".index")
"""A benchmark of one's own: rows of ``{"id", "question", "answer"?}``, or an index that was made elsewhere."""
NGRAM = {"coverage": 3, "ngram13": 13}
"""Words of an n-gram, by method."""


def _known(name: str) -> str:
    if name in BENCHMARKS or name.endswith(FILE_ENDS):
        return name
    near = difflib.get_close_matches(name.lower(), BENCHMARKS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(BENCHMARKS)}"
    raise ValueError(f"{hint}; a benchmark of your own is a path that ends in .jsonl or .index, or a Task")


Benchmark = Annotated[str, AfterValidator(_known)] | Task


class Decontaminate(Spec):
    """Removal of documents that hold test items of benchmarks. Paraphrases are not covered by any method here."""

    benchmarks: tuple[Benchmark, ...] = Field(default=BENCHMARKS, min_length=1)
    """Names, files (.jsonl, .index), or the lab's own tasks, whose test items are taken. A missing one is reported, and
    no run is called clean for it."""
    method: Literal["coverage", "ngram13"] = "coverage"
    """``coverage``: a passage holds enough of an item's 3-grams, rare ones counting most, or of its words in order, and
    does not differ in its numbers. ``ngram13``: any 13 words in a row are the same (Brown et al. 2020, arXiv 2005.14165, appendix C), which
    items of fewer words escape."""
    threshold: float = Field(default=0.3, gt=0, le=1)
    """Share of a long item's 3-grams, by weight, that counts as found. A copy with every fifth word changed keeps
    .8^3 = .51 of them on average."""
    short_threshold: float = Field(default=0.5, gt=0, le=1)
    """The same for the shortest items, whose few 3-grams are met by chance sooner; between the two it falls linearly."""
    numbers: float = Field(default=0.9, ge=0, le=1)
    """Of the item's numbers in whose place a passage has a number, the least share, by weight, that is the same. It keeps
    questions of the same template apart; 0 lets numbers differ."""

    edited: float = Field(default=0.6, gt=0, le=1)
    """Share of an item's words, by weight, that a passage has in the item's order where it counts as an edited copy."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.short_threshold < self.threshold:
            raise ValueError(
                f"short_threshold={self.short_threshold:g} is below threshold={self.threshold:g}: short items would be "
                f"found more easily than long ones; set short_threshold to {self.threshold:g} or more"
            )
        names = [item.name if isinstance(item, Task) else item for item in self.benchmarks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"benchmarks names {', '.join(twice)} twice; name each once")
        return self

    @property
    def ngram(self) -> int:
        """Words of an n-gram."""
        return NGRAM[self.method]
