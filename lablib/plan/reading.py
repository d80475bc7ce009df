"""What a pretraining reads of each domain: its share, its passes over what was prepared, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from lablib.plan.repeats import WORTHWHILE_EPOCHS, effective_tokens
from lablib.specs import Mixture, Pretrain, Recipe, Ref, Spec
from lablib.specs.mixtures import load_mixture, mean
from lablib.specs.paths import runs_root


class Reading(Spec):
    """One domain's part of a run."""

    domain: str
    share: float
    """Of all tokens, over the whole run."""
    tokens: float
    unique: float | None
    """Tokens that were prepared for training; None before that."""
    epochs: float | None
    worth: float | None
    """New tokens that so many are worth (`lablib.plan.repeats`)."""
    over: bool = False
    """Whether it is read more often than the mixture's `max_epochs`: the run will refuse to begin."""


def readings(recipe: Recipe, root: Path | None = None) -> tuple[Reading, ...]:
    """Every domain that a Pretrain recipe names, largest share first; empty where its mixture is not known yet.

    What there is of each is read from the data's manifest, where the recipe refers to a run in `root` that has made it.
    """
    if not isinstance(recipe, Pretrain):
        return ()
    folder = (root or runs_root()) / recipe.data.run if isinstance(recipe.data, Ref) else None
    held, prepared = _manifest(folder / "data" / "manifest.json") if folder else ({}, {})
    mixture = _mixture(recipe, root)
    if mixture is None:
        return ()
    weights = mixture.weights or prepared or held
    whole, tokens = sum(weights.values()), recipe.cut.tokens
    named = sorted(((name, weight / whole) for name, weight in weights.items() if weight > 0), key=lambda one: -one[1])
    return tuple(_reading(name, share, share * tokens, held.get(name), mixture.max_epochs) for name, share in named)


def _mixture(recipe: Pretrain, root: Path | None) -> Mixture | None:
    if not isinstance(recipe.mixture, Ref):
        return recipe.mean_mixture
    made = (root or runs_root()) / recipe.mixture.run / "mixture.json"
    return mean(load_mixture(made)) if made.is_file() else None


def _reading(name: str, share: float, tokens: float, unique: float | None, limit: float) -> Reading:
    if not unique:
        return Reading(domain=name, share=share, tokens=tokens, unique=None, epochs=None, worth=None)
    epochs, worth = tokens / unique, effective_tokens(tokens, unique)
    return Reading(
        domain=name, share=share, tokens=tokens, unique=unique, epochs=epochs, worth=worth, over=epochs > limit
    )


def _manifest(file: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """(Domain → tokens to train on, the mixture that it was prepared with); empty where there is no manifest yet."""
    try:
        return _read(str(file), file.stat().st_mtime_ns)
    except OSError:
        return {}, {}


@lru_cache(maxsize=32)
def _read(file: str, _changed: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
    card = json.loads(Path(file).read_text(encoding="utf-8"))
    held = {row["domain"]: float(row["tokens"]) for row in card["shards"] if row["split"] == "train" and row["tokens"]}
    return held, card["mixture"]


def cautions(reads: tuple[Reading, ...]) -> Iterator[str]:
    """Where a domain is read too often: beyond the recipe's limit, or so often that its repeats are worth visibly less."""
    for one in reads:
        if one.over:
            yield f"{one.domain} would be read {one.epochs:.1f} times, more than mixture.max_epochs: the run will refuse to begin; give it a smaller weight, train on fewer tokens, or raise max_epochs"
        elif one.epochs is not None and one.worth is not None and one.epochs > WORTHWHILE_EPOCHS:
            yield f"{one.domain} is read {one.epochs:.1f} times, worth {one.worth / one.tokens:.0%} of so many new tokens (arXiv 2305.16264)"


def line(reads: tuple[Reading, ...], most: int = 6) -> str:
    """Shares and passes in one line, the largest `most` of them."""
    cells = [f"{one.domain} {one.share:.1%}" + ("" if one.epochs is None else f" × {one.epochs:.2g}") for one in reads]
    more = [f"{len(cells) - most} more"] if len(cells) > most else []
    passes = " (share × passes)" if any(one.epochs is not None for one in reads) else ""
    return ", ".join(cells[:most] + more) + passes
