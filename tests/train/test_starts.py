"""A run that starts from a model's folder or from a checkpoint: every rank reads its part, and all begin as one process does."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from launch import on_ranks
from layouts import MODELS, Case, train_all
from test_parity_layouts import FOUR, LOSS, NORM, P
from torch.distributed.tensor import DTensor

from lablib.models import stored
from lablib.models.build import build_model
from lablib.models.checkpoints import MARKER
from lablib.models.layout import Links, distribute, whole_model
from lablib.models.seeded import skeleton
from lablib.specs import Optimizer
from lablib.train.checkpoint import tensors_of
from lablib.train.distributed import joined
from lablib.train.optimizer import build_optimizer
from lablib.train.rules.base import moments
from lablib.train.sharded import save_tensors
from lablib.train.start import Start

KINDS = ("folder", "checkpoint")
TWO = {
    "one process of two": Case("gpt2", P(dp_replicate=2)),
    "fsdp": Case("uneven", P(dp_shard=2)),
    "fsdp of experts": Case("moe", P(dp_shard=2)),
    "a rank without rows": Case("one expert", P(dp_shard=2)),
    "ep": Case("moe", P(dp_shard=2, ep=2)),
    "tp": Case("tied", P(tp=2)),
    "tp of experts": Case("moe", P(tp=2)),
    "pp": Case("dense", P(pp=2, virtual_stages=2)),
}

PRODUCTS = ("zero2 hsdp", "zero1 tp", "pp dp", "pp tp", "pp interleaved dp", "ep dp", "ep ddp", "ep tp dp", "ep pp")


@cache
def begun(root: Path, model: str, kind: str) -> Path:
    """What a run starts from, of one process: weights drawn from another seed, and in a checkpoint moments too."""
    folder = root / f"{model}-{kind}"
    made = build_model(MODELS[model], 5)
    if kind == "folder":
        made.save_pretrained(folder, max_shard_size="100KB")
        return folder
    optimizer = build_optimizer(made, Optimizer())
    draw = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        for tensor in moments(optimizer, weight).values():
            tensor.copy_(torch.rand(tensor.shape, generator=draw))
    folder.mkdir()
    save_tensors(tensors_of(made, optimizer), folder)
    (folder / MARKER).write_text(json.dumps({"step": 3}))
    return folder


def started(cases: list[tuple[Case, Path]]) -> list[bool]:
    """Whether all weights (and moments, where there are any) are those of one process, bit for bit."""
    found = []
    with joined(cases[0][0].layout.gpus) as world:
        for case, folder in cases:
            layout = case.layout
            links = Links.of(layout, world.device)
            model = distribute(skeleton(MODELS[case.model]), layout, False, world.device, links).model
            optimizer = build_optimizer(model, Optimizer())
            with patch.object(stored, "places", _first_places if case.bug else stored.places):
                Start(folder).fill(model, optimizer, MODELS[case.model])
            parts = _flat(whole_model(model, links))
            for moment in ("exp_avg", "exp_avg_sq") if Start(folder).is_checkpoint else ():
                with torch.no_grad():
                    for weight in model.parameters():
                        weight.copy_(moments(optimizer, weight)[moment])
                parts += _flat(whole_model(model, links))
            found.append(world.is_main and _same(parts, _wanted(case.model, Start(folder).is_checkpoint)))
    return found


def _flat(model: Any) -> list[torch.Tensor]:
    return [] if model is None else [weight.detach().clone() for weight in model.parameters()]


def _same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def _wanted(model: str, with_moments: bool) -> list[torch.Tensor]:
    weights = [weight.detach() for weight in build_model(MODELS[model], 5).parameters()]
    draw = torch.Generator().manual_seed(0)
    drawn = [[torch.rand(weight.shape, generator=draw) for _ in range(2)] for weight in weights]
    return [*weights, *(pair[number] for number in range(2 * with_moments) for pair in drawn)]


def _first_places(like: torch.Tensor, dim: int) -> torch.Tensor:
    mine = like.to_local() if isinstance(like, DTensor) else like
    return torch.arange(mine.shape[dim])


@pytest.fixture(scope="module")
def two(root: Path) -> dict[tuple[str, str], bool]:
    """All layouts on two processes from both, in one launch; in the last every rank reads what the first one holds."""
    cases = {(name, kind): (case, begun(root, case.model, kind)) for name, case in TWO.items() for kind in KINDS}
    cases["planted", "folder"] = Case("uneven", P(dp_shard=2), "first places"), begun(root, "uneven", "folder")
    return dict(zip(cases, on_ranks(2, started, list(cases.values())), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TWO)
def test_two_processes_start_as_one(two: dict[tuple[str, str], bool], name: str, kind: str) -> None:
    assert two[name, kind]


def test_planted_mistake_shows(two: dict[tuple[str, str], bool]) -> None:
    assert not two["planted", "folder"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_processes_start_as_one(root: Path) -> None:
    cases = {(name, kind): (FOUR[name], begun(root, FOUR[name].model, kind)) for name in PRODUCTS for kind in KINDS}
    found = dict(zip(cases, on_ranks(4, started, list(cases.values())), strict=True))
    assert all(found.values()), found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_four_processes_go_on_as_one(root: Path, kind: str) -> None:
    """Three steps from there, under products of layouts; these weights round otherwise than the drawn ones of the parity tests."""
    cases = [replace(FOUR[name], start=begun(root, FOUR[name].model, kind)) for name in PRODUCTS]
    alone = {case.model: replace(case, layout=P(micro_batch_size=4)) for case in cases}
    ones = dict(zip(alone, train_all(list(alone.values())), strict=True))
    for name, case, found in zip(PRODUCTS, cases, on_ranks(4, train_all, cases), strict=True):
        loss, norm, *_ = found.differences(ones[case.model])
        assert loss <= LOSS and norm <= 4 * NORM, (name, loss, norm)
