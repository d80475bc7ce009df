"""Chunked and fused losses and update rules on two processes against one: whole matrices where a rule needs them, on any layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from launch import on_ranks

from lablib.models import seeded
from lablib.models.build import build_model
from lablib.models.layout import Laid, Links, distribute, sum_partial_gradients
from lablib.specs import ModelSpec, MoE, Optimizer, Parallelism
from lablib.specs.recipe import CrossEntropy
from lablib.train.batches import Batch
from lablib.train.distributed import joined
from lablib.train.losses import TokenLosses
from lablib.train.optimizer import build_optimizer
from lablib.train.rules import muon, shampoo
from lablib.train.rules.base import with_local

MODEL = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, ffn=52, vocab=97)
"""No dimension but the hidden one divides by all of 2, 4 and 8: uneven shards are among them."""
EXPERTS = MODEL.replace(family="qwen3_moe", moe=MoE(experts=4, top_k=2, expert_ffn=24))
LAYOUTS = {"fsdp2": Parallelism(dp_shard=2), "tp2": Parallelism(tp=2)}
KINDS = ("muon", "soap", "shampoo", "adafactor", "lion", "adamw-8bit")
APART = {("tp2", "soap"), ("tp2", "adamw-8bit")}
CASES = [(layout, kind) for layout in LAYOUTS for kind in KINDS if (layout, kind) not in APART]
"""Tensor parallelism sums in another order. SOAP's first eigenvectors of a rank-deficient covariance follow the rounding: one
process whose weights differ by 1e-7 already moves its oblong matrices 0.46 apart, so there is nothing to compare. Rows so narrow are no
whole 8-bit blocks on each rank, which is refused."""
STEPS = 3
ALONE = Links()


def batch() -> Batch:
    ids = torch.randint(97, (3, 20), generator=torch.Generator().manual_seed(2))
    return Batch(ids, ids.roll(-1, 1), torch.arange(20).expand(3, -1).contiguous())


def whole(tensor: Any) -> torch.Tensor:
    return torch.Tensor.clone(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def complete(laid: Laid, links: Links) -> Any:
    """The model, with gradients as the step leaves them."""
    sum_partial_gradients(laid.model, laid.partial, links)
    return laid.model


def losses(laid: Laid, kind: CrossEntropy, links: Links = ALONE) -> dict[str, torch.Tensor]:
    """The sum of the losses of the batch's tokens and its gradients; every rank reads the same batch."""
    model = laid.model
    found = TokenLosses(model, kind, z_loss=1e-3, chunk=7).sum(batch())
    found.backward()
    complete(laid, links)
    return {"": found.detach()} | {name: whole(w.grad) for name, w in model.named_parameters() if w.grad is not None}


def updates(laid: Laid, kind: str, links: Links = ALONE) -> dict[str, torch.Tensor]:
    """How far a few steps move each weight."""
    model = laid.model
    before = {name: whole(weight) for name, weight in model.named_parameters()}
    optimizer = build_optimizer(model, Optimizer(kind=kind, learning_rate=1e-3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shampoo, "EVERY", 2)
        for _ in range(STEPS):
            TokenLosses(model)(batch()).mean().backward()
            complete(laid, links)
            optimizer.step()
            optimizer.zero_grad()
    return {name: whole(weight) - before[name] for name, weight in model.named_parameters()}


def each_its_own_shard(tensors: Sequence[torch.Tensor], work: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    """What a forgotten gathering does."""
    return [with_local(one, work(seeded.local(one))) for one in tensors]


def worked(laid: Laid, links: Links) -> int:
    """Matrices that this rank orthogonalises in a step of Muon."""
    count, real = 0, muon.orthogonalised

    def counted(matrices: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += matrices[..., 0, 0].numel()
        return real(matrices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(muon, "orthogonalised", counted)
        optimizer = build_optimizer(laid.model, Optimizer(kind="muon"))
        TokenLosses(laid.model)(batch()).mean().backward()
        complete(laid, links)
        optimizer.step()
    return count


def spread(layouts: dict[str, Parallelism]) -> dict[tuple[str, str], Any]:
    """Everything that is compared, on this process."""
    found: dict[tuple[str, str], Any] = {}
    with joined(next(iter(layouts.values())).gpus) as world:
        for name, layout in layouts.items():
            links = Links.of(layout, world.device)

            def made(layout: Parallelism = layout, links: Links = links) -> Laid:
                return distribute(build_model(MODEL, 0), layout, False, world.device, links)

            found[name, "chunked"] = losses(made(), "chunked", links)
            if name == "fsdp2":
                found[name, "fused"] = losses(made(), "fused", links)
            found |= {(name, kind): updates(made(), kind, links) for kind in KINDS if (name, kind) in CASES}
            if name == "fsdp2":
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(muon, "dealt", each_its_own_shard)
                    found[name, "planted"] = updates(made(), "muon", links)
            found[name, "worked"] = {"": torch.tensor(float(worked(made(), links)))}
    # A tensor in a pipe is a handle that its sender must outlive.
    return {key: {name: tensor.numpy() for name, tensor in tensors.items()} for key, tensors in found.items()}


@pytest.fixture(scope="module")
def two() -> dict[tuple[str, str], Any]:
    found = on_ranks(2, spread, LAYOUTS)
    return {key: {name: torch.from_numpy(array) for name, array in arrays.items()} for key, arrays in found.items()}


def one(spec: ModelSpec = MODEL) -> Laid:
    model = build_model(spec, 0)
    return Laid(model, (model,))


def off(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference of a tensor in the L2 norm, relative to what is wanted."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).norm() / (wanted[name].norm() + 1e-9)) for name in wanted)


@pytest.mark.parametrize(("layout", "kind"), [("fsdp2", "chunked"), ("tp2", "chunked"), ("fsdp2", "fused")])
def test_losses_without_all_logits(two: dict[tuple[str, str], Any], layout: str, kind: str) -> None:
    assert off(two[layout, kind], losses(one(), "full")) < 1e-5


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_updates(two: dict[tuple[str, str], Any], layout: str, kind: str) -> None:
    assert off(two[layout, kind], updates(one(), kind)) < 0.01


def test_planted_muon_of_shards_is_seen(two: dict[tuple[str, str], Any]) -> None:
    assert off(two["fsdp2", "planted"], updates(one(), "muon")) > 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_divide_muons_matrices(two: dict[tuple[str, str], Any], layout: str) -> None:
    assert worked(one(), ALONE) == 14, "seven of each layer"
    assert int(two[layout, "worked"][""]) == 7


MESHES = {"hsdp": Parallelism(dp_replicate=2, dp_shard=2), "fsdp2-tp2": Parallelism(dp_shard=2, tp=2)}


def muon_on_meshes() -> dict[str, Any]:
    """Updates and this rank's matrices of each of `MESHES`, and of a model with experts under expert parallelism."""
    found: dict[str, Any] = {}
    with joined(4) as world:
        for name, layout in (MESHES | {"experts": Parallelism(dp_shard=4, ep=2)}).items():
            links = Links.of(layout, world.device)
            spec = EXPERTS if name == "experts" else MODEL
            moved, count = (
                work(distribute(build_model(spec, 0), layout, False, world.device, links), *more)
                for work, more in ((updates, ("muon", links)), (worked, (links,)))
            )
            found[name] = count, {key: tensor.numpy() for key, tensor in moved.items()}
    return found


@pytest.mark.slow
def test_muon_on_meshes_of_two_dimensions() -> None:
    found = on_ranks(4, muon_on_meshes)
    for name, (count, moved) in found.items():
        wanted = updates(one(EXPERTS if name == "experts" else MODEL), "muon")
        assert off({key: torch.from_numpy(array) for key, array in moved.items()}, wanted) < 0.01
        assert name == "experts" or count in (3, 4, 5), "8, 4 and 2 of a shape, at most a quarter of each rounded up"
