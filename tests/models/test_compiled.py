"""Compiled layers compute what eager ones do, and a budget makes them keep less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._functorch.config as functorch

from lablib.models.build import build_model
from lablib.models.compiled import BUDGET, compile_layers
from lablib.specs import ModelSpec

SPEC = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, ffn=192, vocab=128)
TOKENS = torch.randint(0, 128, (2, 96), generator=torch.Generator().manual_seed(0))


def passed(model: Any) -> tuple[torch.Tensor, int]:
    """All gradients in a row, and the bytes that the forward pass kept for them."""
    held: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: held.append(one.nbytes) or one, lambda one: one):
        logits = model(input_ids=TOKENS, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.flatten()).backward()
    found = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    model.zero_grad()
    return found, sum(held)


@pytest.mark.slow
def test_layers_compiled_under_a_budget_keep_less_for_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functorch, "activation_memory_budget", 1.0)
    wanted, eager = passed(build_model(SPEC, 0).train())
    kept = []
    for budget in (1.0, BUDGET):
        model = build_model(SPEC, 0).train()
        compile_layers(model, budget)
        found, size = passed(model)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
        kept.append(size)
        torch.compiler.reset()
    assert kept[1] < kept[0] < eager
