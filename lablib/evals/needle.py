"""A needle in a haystack: can the model find what it read long ago? RULER's wording, made here, no data needed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lablib.models.generate import generate, generation_settings
from lablib.specs import LabError, Needle

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
INTRODUCTION = (
    "A special magic number is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the number afterwards.\n"
)
NEEDLE = "One of the special magic numbers for {key} is: {number}."
QUESTION = (
    "\nWhat is the special magic number for {key} mentioned in the provided text? "
    "The special magic number for {key} mentioned in the provided text is"
)
"""Wordings of RULER's niah_single_1 (github.com/NVIDIA/RULER, scripts/data/synthetic)."""
KEYS = ("amber harbour", "brisk meadow", "calm lantern", "dusty violin", "eager comet", "faint orchard", "gentle anvil",
        "hollow canyon", "ivory compass", "jolly kettle")  # fmt: skip
_LINES = 64
"""Of noise, by whose tokens a longer text's are foretold."""
_TOKENS = 65_536
"""Of the prompts of one batch: their keys and values must fit beside the model."""


@dataclass(frozen=True)
class Hidden:
    """One item."""

    key: str
    """Its name among the items of its length: depth and number."""
    ids: list[int]
    """The prompt's tokens."""
    prompt: str
    number: str


def hide(wanted: Needle, length: int, tokenizer: Any, seed: int) -> list[Hidden]:
    """The items of one length, the same ones for every model with this tokenizer: as much noise as fits.

    Raises `LabError` where the question alone is longer.
    """
    draw = random.Random(f"{seed}-{length}")
    return [
        _item(wanted, length, tokenizer, depth, number, draw) for depth in wanted.depths for number in range(wanted.repeats)
    ]  # fmt: skip


def _item(wanted: Needle, length: int, tokenizer: Any, depth: float, number: int, draw: random.Random) -> Hidden:
    key, value = draw.choice(KEYS), str(draw.randint(1_000_000, 9_999_999))

    def prompt(lines: int) -> str:
        hay = [NOISE] * lines
        hay.insert(round(depth * lines), NEEDLE.format(key=key, number=value))
        return INTRODUCTION + "\n".join(hay) + QUESTION.format(key=key)

    def tokens(lines: int) -> list[int]:
        ids: list[int] = tokenizer(prompt(lines), add_special_tokens=False)["input_ids"]
        return ids

    room = length - wanted.max_new_tokens
    alone = len(tokens(0))
    if alone > room:
        raise LabError(f"needle.lengths: {length} tokens do not hold the question ({alone}) and an answer ({wanted.max_new_tokens}); give longer ones")  # fmt: skip
    lines = int((room - alone) * _LINES / (len(tokens(_LINES)) - alone))
    while lines and len(tokens(lines)) > room:
        lines -= 1
    return Hidden(f"{depth:g}-{number}", tokens(lines), prompt(lines), value)


def find(model: PreTrainedModel, tokenizer: Any, items: list[Hidden], wanted: Needle, report: Callable[[int], None] = lambda done: None) -> list[str]:  # fmt: skip
    """The model's greedy answers; `report` gets the number done. Raises `LabError` for a model that has learned its positions one
    by one and has no more of them."""
    longest, known = max(len(item.ids) for item in items), getattr(model.config, "n_positions", None)
    if known is not None and longest + wanted.max_new_tokens > known:
        raise LabError(f"needle.lengths: {longest + wanted.max_new_tokens} tokens are more than the model's {known} learned positions; give shorter ones")  # fmt: skip
    settings = generation_settings(tokenizer, wanted.max_new_tokens)
    batch = max(1, _TOKENS // longest)
    return generate(model, tokenizer, [item.ids for item in items], settings, batch, report)


def right(item: Hidden, said: str) -> float:
    """1 where the number is in the answer, as RULER's ``string_match_all`` has it, else 0."""
    return float(item.number in said)
