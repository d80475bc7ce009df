"""What a mid-training should be warned of: rules of thumb that its replay, its rate or its length lies outside."""

from __future__ import annotations

from collections.abc import Iterator

from lablib.plan.reading import Reading
from lablib.specs import Midtrain, Recipe
from lablib.specs.midtrain import DOMAIN_PASSES, EXTEND_TOKENS, REPLAY_SHARES


def cautions(recipe: Recipe, reads: tuple[Reading, ...]) -> Iterator[str]:
    """Of a Midtrain recipe, with what it reads of each domain; nothing for others."""
    if not isinstance(recipe, Midtrain):
        return
    if recipe.kind == "continue":
        yield from _replayed(recipe)
        yield from _domain(recipe, reads)
    low, high = EXTEND_TOKENS
    if recipe.kind == "extend" and not low <= recipe.tokens <= high:
        yield f"tokens={recipe.tokens:,}: a new length usually takes {low / 1e9:.0f} to {high / 1e9:.0f} billion tokens"


def _replayed(recipe: Midtrain) -> Iterator[str]:
    low, high = REPLAY_SHARES
    share = recipe.replay.share if recipe.replay else 0.0
    if not low <= share <= high:
        effect = "the old domains may be forgotten" if share < low else "little is left for the new domain"
        yield f"replay.share={share:g}: {low:.0%} to {high:.0%} of the old mixture is usual; with this {effect}"


def _domain(recipe: Midtrain, reads: tuple[Reading, ...]) -> Iterator[str]:
    """Passes over the domains that are new, where their size is known."""
    old = recipe.replay.mixture.weights if recipe.replay else {}
    new = [one for one in reads if one.unique and not old.get(one.domain)]
    unique = sum(one.unique or 0.0 for one in new)
    if not unique:
        return
    passes, (low, high) = sum(one.tokens for one in new) / unique, DOMAIN_PASSES
    if not low <= passes <= high:
        yield f"the new domain is read {passes:.2g} times: {low:g} to {high:g} of its {unique:,.0f} tokens is usual; change tokens"
