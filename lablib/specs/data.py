"""What recipes read: a `Mixture` of domains, a `Task` with verifiable answers, a `Ref` to another run's artefact."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from lablib.specs.base import Spec

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


def check_slug(text: str) -> str:
    """A name that may become a folder: lower-case letters, digits, ``. _ -``, at most 80. Raises ValueError."""
    if not _SLUG.fullmatch(text) or ".." in text:
        raise ValueError("must be 1 to 80 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    return text


Slug = Annotated[str, AfterValidator(check_slug)]


class Ref(Spec):
    """A typed reference to an artefact of another run; resolved and frozen by checksum when the job starts."""

    run: Slug
    """Id of the run that makes it: a sibling folder."""
    artefact: Slug
    science: str
    """The producing recipe's science hash, so that an experiment is the same wherever its inputs were made."""

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("run") and "science" not in data:
            raise ValueError(f"science missing: Run.open({data['run']!r}).ref({data.get('artefact', 'model')!r}).to_json() writes the whole reference")  # fmt: skip
        return data

    def __str__(self) -> str:
        return f"{self.run}:{self.artefact}"


class Mixture(Spec):
    """Shares of tokens by domain; empty means each domain in its natural proportion."""

    weights: dict[str, float] = {}
    max_epochs: float = Field(default=4.0, gt=0)
    """Most passes over any domain; 4 is where repeats stop being nearly as good as new data (arXiv 2305.16264)."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if any(share < 0 for share in self.weights.values()):
            raise ValueError("weights must not be negative; leave a domain out instead")
        if self.weights and abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"weights sum to {sum(self.weights.values()):.4f}; make them sum to 1")
        return self


class Task(Spec):
    """Procedurally made questions with a scorer (a reasoning-gym generator), split so that no prompt is in two splits."""

    name: Slug
    generator: Slug
    params: dict[str, Any] = {}
    fewshot: int = Field(default=0, ge=0)
    """Worked examples put before each question; they come from the train split."""
    seed: int = 0
    train: int = Field(default=512, gt=0)
    test: int = Field(default=128, gt=0)
