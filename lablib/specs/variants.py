"""`variants`: a recipe several times over, for seeds, sweeps and ladders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeVar

from lablib.specs.base import Spec
from lablib.specs.errors import LabError
from lablib.specs.recipe import Recipe

R = TypeVar("R", bound=Recipe)
MOST = 10_000
"""Runs of one sweep; more is a slip of the pen."""


def variants(recipe: R, changes: Mapping[str, Sequence[Any]]) -> list[R]:
    """Every combination of values, the last field quickest: ``{"optimizer.lr": [1e-3, 3e-3], "seed": [0, 1]}``.

    A dot goes into a part of the recipe. Raises `LabError` for a field or a value that recipes do not take.
    """
    made = []
    combinations = list(product(*changes.values()))
    if len(combinations) > MOST:
        raise LabError(f"{len(combinations):,} variants are more than {MOST:,}; vary fewer fields")
    for values in combinations:
        chosen = recipe
        for path, value in zip(changes, values, strict=True):
            chosen = _with(chosen, path.split("."), value, path)
        made.append(chosen)
    return made


def _with(spec: Any, path: Sequence[str], value: Any, whole: str) -> Any:
    head, *rest = path
    if not isinstance(spec, Spec) or head not in type(spec).model_fields:
        known = ", ".join(type(spec).model_fields) if isinstance(spec, Spec) else "nothing below it"
        raise LabError(f"{whole}: there is no {head!r} there; there are: {known}")
    return spec.replace(**{head: _with(getattr(spec, head), rest, value, whole) if rest else value})
