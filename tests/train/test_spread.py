"""Chunked losses and update rules on two processes against one: whole matrices where a rule needs them, on any layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from launch import on_ranks

from lablib.models.build import build_model
from lablib.models.layout import distribute
from lablib.specs import ModelSpec, Optimizer, Parallelism
from lablib.train.batches import Batch
from lablib.train.distributed import joined
from lablib.train.losses import TokenLosses
from lablib.train.optimizer import build_optimizer
from lablib.train.rules import base, muon

MODEL = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, ffn=52, vocab=97)
"""No dimension but the hidden one divides by all of 2, 4 and 8: uneven shards are among them."""
LAYOUTS = {"fsdp2": Parallelism(dp_shard=2), "tp2": Parallelism(tp=2)}
KINDS = ("muon", "soap", "adafactor", "lion")
STEPS = 3


def batch() -> Batch:
    ids = torch.randint(97, (3, 20), generator=torch.Generator().manual_seed(2))
    return Batch(ids, ids.roll(-1, 1), torch.arange(20).expand(3, -1).contiguous())


def whole(tensor: Any) -> torch.Tensor:
    return torch.Tensor.clone(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def losses(model: Any, chunked: bool) -> dict[str, torch.Tensor]:
    """Losses of the batch's tokens and gradients of their sum; every rank reads the same batch."""
    found = TokenLosses(model, chunked=chunked, z_loss=1e-3, chunk=7)(batch())
    found.sum().backward()
    return {"": found.detach()} | {name: whole(w.grad) for name, w in model.named_parameters() if w.grad is not None}


def updates(model: Any, kind: str) -> dict[str, torch.Tensor]:
    """How far a few steps move each weight."""
    before = {name: whole(weight) for name, weight in model.named_parameters()}
    optimizer = build_optimizer(model, Optimizer(kind=kind, learning_rate=1e-3))
    for _ in range(STEPS):
        TokenLosses(model)(batch()).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: whole(weight) - before[name] for name, weight in model.named_parameters()}


def spread(layouts: dict[str, Parallelism]) -> dict[tuple[str, str], Any]:
    """Everything that is compared, on this process."""
    found: dict[tuple[str, str], Any] = {}
    with joined(next(iter(layouts.values())).gpus) as world:
        for name, layout in layouts.items():

            def made(layout: Parallelism = layout) -> Any:
                return distribute(build_model(MODEL, 0), layout, False, world.device).model

            found[name, "losses"] = losses(made(), chunked=True)
            found |= {(name, kind): updates(made(), kind) for kind in KINDS}
        if "fsdp2" in layouts:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(muon, "whole", base.local)
                patch.setattr(muon, "shared_out", lambda full, like: full)
                found["fsdp2", "planted"] = updates(distribute(build_model(MODEL, 0), layouts["fsdp2"], False, world.device).model, "muon")  # fmt: skip
    # A tensor in a pipe is a handle that its sender must outlive.
    return {key: {name: tensor.numpy() for name, tensor in tensors.items()} for key, tensors in found.items()}


@pytest.fixture(scope="module")
def two() -> dict[tuple[str, str], Any]:
    found = on_ranks(2, spread, LAYOUTS)
    return {key: {name: torch.from_numpy(array) for name, array in arrays.items()} for key, arrays in found.items()}


def off(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference of a tensor in the L2 norm, relative to what is wanted."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).norm() / (wanted[name].norm() + 1e-9)) for name in wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunked_losses(two: dict[tuple[str, str], Any], layout: str) -> None:
    assert off(two[layout, "losses"], losses(build_model(MODEL, 0), chunked=False)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_updates(two: dict[tuple[str, str], Any], layout: str, kind: str) -> None:
    assert off(two[layout, kind], updates(build_model(MODEL, 0), kind)) < 0.01


def test_planted_muon_of_shards_is_seen(two: dict[tuple[str, str], Any]) -> None:
    assert off(two["fsdp2", "planted"], updates(build_model(MODEL, 0), "muon")) > 0.1
