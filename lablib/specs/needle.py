"""`Needle`: a number hidden in a long text and asked for at its end, at several lengths and depths."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lablib.specs.base import Spec
from lablib.specs.units import Count


class Needle(Spec):
    """RULER's single needle in noise (arXiv 2404.06654 §3, niah_single_1), shorter than its 500 items a length."""

    lengths: tuple[Count, ...] = Field(default=(4096, 8192, 16384, 32768), min_length=1)
    """Tokens of the prompt and what the model may answer, together."""
    depths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where the needle lies: 0 at the beginning, 1 right before the question."""
    repeats: int = Field(default=8, gt=0)
    """Items of each length and depth, each with another key and number."""
    max_new_tokens: int = Field(default=32, gt=0)

    @property
    def items(self) -> int:
        """Items of one length."""
        return len(self.depths) * self.repeats

    @property
    def tasks(self) -> dict[str, int]:
        """What each length is called among an evaluation's tasks → the length."""
        return {f"needle-{length}": length for length in self.lengths}
