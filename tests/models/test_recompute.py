"""Recomputation: the same gradients from fewer kept activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lablib.models.build import build_model
from lablib.models.recompute import apply_recompute
from lablib.specs import ModelSpec

MODEL = ModelSpec(family="qwen3", layers=3, hidden=64, heads=4, kv_heads=2, ffn=160, vocab=300)
TOKENS = torch.randint(300, (2, 48), generator=torch.Generator().manual_seed(0))


def passed(kind: str) -> tuple[int, torch.Tensor]:
    """(bytes that the forward pass keeps for the backward pass inside the layers, all gradients in one vector)."""
    model = build_model(MODEL, 0).train()
    apply_recompute(model, kind)  # type: ignore[arg-type]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=TOKENS, use_cache=False).logits
    logits.logsumexp(-1).sum().backward()
    return sum(kept.values()), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_gradients_are_the_same(kind: str) -> None:
    torch.testing.assert_close(passed(kind)[1], passed("none")[1], rtol=1e-5, atol=1e-6)


def test_full_keeps_less_than_none() -> None:
    assert passed("full")[0] < 0.6 * passed("none")[0]


class Products(TorchDispatchMode):
    """Counts the matrix products that are really computed."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "again"), [("none", 0), ("selective", 0), ("full", 1)])
def test_which_matrix_products_are_repeated(kind: str, again: int) -> None:
    """A layer has 7 matrix products forward and 14 backward; "full" repeats the 7 (early stop may spare the last)."""
    model = build_model(MODEL, 0).train()
    apply_recompute(model, kind)  # type: ignore[arg-type]
    with Products() as seen:
        model(input_ids=TOKENS, use_cache=False).logits.sum().backward()
    once = 3 * (7 * MODEL.layers + 1)
    assert once + again * 6 * MODEL.layers <= seen.count <= once + again * 7 * MODEL.layers
