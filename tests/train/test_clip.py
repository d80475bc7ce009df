"""Clipping on one process against torch's own."""

from __future__ import annotations

import pytest
import torch

from lablib.train.clip import clip_gradients


def parameters() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    found = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((3, 4), (5,), (2, 2, 2))]
    for weight in found:
        weight.grad = torch.randn(weight.shape, generator=draw)
    return [*found, torch.nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize("limit", [0.5, 1.0, 100.0])
def test_agrees_with_torch(limit: float) -> None:
    ours, theirs = parameters(), parameters()
    norm = clip_gradients(ours, limit)
    assert norm == torch.nn.utils.clip_grad_norm_(theirs, limit)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad)


def test_a_small_gradient_is_left_alone() -> None:
    ours = parameters()
    before = [weight.grad.clone() for weight in ours if weight.grad is not None]
    clip_gradients(ours, 1e6)
    assert all(torch.equal(a, b.grad) for a, b in zip(before, ours, strict=False))
