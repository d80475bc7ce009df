"""The decoder layers of a transformers model, whatever it calls them and however many of them this rank holds."""

from __future__ import annotations

import re

import torch

_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)")


def layer_number(name: str) -> int | None:
    """The decoder layer, counted from 0 in the whole model, that a module or parameter of this dotted name lies in."""
    found = re.match(_LAYER.pattern + r"(?:\.|$)", name)
    return int(found[1]) if found else None


def decoder_layers(model: torch.nn.Module) -> dict[int, torch.nn.Module]:
    """Number in the whole model → layer, of those that this rank holds."""
    named = ((_LAYER.fullmatch(name), module) for name, module in model.named_modules())
    return {int(found[1]): module for found, module in named if found}
