"""What a pretraining reads of each domain: its share, its passes over what was prepared, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from lablib.plan.repeats import WORTHWHILE_EPOCHS, effective_tokens
from lablib.specs import Mixture, Pretrain, Recipe, Ref, Spec
from lablib.specs.mixtures import Curriculum, load_mixture, mean
from lablib.specs.paths import runs_root
from lablib.specs.synthetic import Synthetic


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


def readings(recipe: Recipe, root: Path | None = None, own: Path | None = None) -> tuple[Reading, ...]:
    """Every domain that a Pretrain recipe names, largest share first; empty where its mixture is not known yet.

    What there is of each is read from the data's manifest, where the recipe refers to a run in `root` that has made it, or
    names a corpus and the run in the folder `own` has prepared it.
    """
    if not isinstance(recipe, Pretrain):
        return ()
    phases, held = phased(recipe, root, own), _held(recipe, root, own)[0]
    if not phases:
        return ()
    tokens = recipe.cut.tokens
    shares: dict[str, float] = {}
    for (start, weights), end in zip(phases, [*(start for start, _ in phases[1:]), tokens], strict=True):
        for name, share in weights.items():
            shares[name] = shares.get(name, 0.0) + share * ((end - start) / tokens)
    limit = mean(_mixture(recipe, root) or Mixture()).max_epochs
    named = sorted(((name, share) for name, share in shares.items() if share > 0), key=lambda one: -one[1])
    return tuple(_reading(name, share, share * tokens, held.get(name), limit) for name, share in named)


def phased(recipe: Pretrain, root: Path | None = None, own: Path | None = None) -> list[tuple[float, dict[str, float]]]:
    """(First token, domain → planned share from there on), a row a phase; empty where the mixture is not known yet.

    Folders as in `readings`.
    """
    mixture = _mixture(recipe, root)
    if isinstance(mixture, Curriculum):
        stretch = recipe.cut.tokens / mixture.tokens
        return [(start * stretch, mixture.at(start)) for start in mixture.starts[:-1]]
    held, prepared = _held(recipe, root, own)
    weights = (mixture.weights or prepared or held) if mixture else {}
    whole = sum(weights.values())
    return [(0, {name: weight / whole for name, weight in weights.items()})] if whole else []


def breach(recipe: Recipe, root: Path | None = None) -> tuple[str, bool]:
    """(Why a Pretrain recipe's mixture breaks the caps on synthetic text, whether that is refused); empty where it does not.

    It is refused under caps that the data was prepared with; the usual ones only warn.
    """
    folder = _folder(recipe, root, None) if isinstance(recipe, Pretrain) else None
    found = Synthetic.of(folder) if folder else Synthetic(domains={})
    if not found.domains:
        return "", False
    why = found.against({one.domain: one.share for one in readings(recipe, root)})
    return why, bool(why) and found.caps is not None


def _mixture(recipe: Pretrain, root: Path | None) -> Mixture | Curriculum | None:
    blend = recipe.blend
    if not isinstance(blend, Ref):
        return blend
    made = (root or runs_root()) / blend.run / "mixture.json"
    return load_mixture(made) if made.is_file() else None


def _folder(recipe: Pretrain, root: Path | None, own: Path | None) -> Path | None:
    run = (root or runs_root()) / recipe.data.run if isinstance(recipe.data, Ref) else own
    return None if run is None else run / "data"


def _held(recipe: Pretrain, root: Path | None, own: Path | None) -> tuple[Mapping[str, float], Mapping[str, float]]:
    folder = _folder(recipe, root, own)
    return ({}, {}) if folder is None else _manifest(folder / "manifest.json")


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


def cautions(reads: tuple[Reading, ...], breached: tuple[str, bool] = ("", False)) -> Iterator[str]:
    """Where a domain is read too often: beyond the recipe's limit, or so often that its repeats are worth visibly less; and
    what `breach` found."""
    why, refused = breached
    if why:
        yield f"{why}{': the run will refuse to begin' if refused else ' (the usual caps: the data was prepared without any)'}"
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
