"""Every update rule against a peer's code or its paper's formula, on matrices, stacks of matrices and vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lablib.models.build import build_model
from lablib.models.mup import hidden_matrices
from lablib.specs import SSM, ModelSpec, MoE, Optimizer
from lablib.specs.recipe import OptimizerKind
from lablib.train.optimizer import build_optimizer, rules
from lablib.train.rules import muon, shampoo, soap
from lablib.train.rules.adafactor import Adafactor
from lablib.train.rules.base import Rule, Ruled
from lablib.train.rules.elementwise import SGD, AdamW, AdamW16, Lion

SHAPES = ((6, 4), (4, 6), (5,))
STEPS = 25


def trained(make: Callable[[list[Tensor]], torch.optim.Optimizer], shapes: Any = SHAPES, steps: int = STEPS) -> Tensor:
    """All weights after some steps of given gradients of quickly changing size, at a rate that changes too."""
    draw = torch.Generator().manual_seed(1)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    optimizer = make(weights)  # type: ignore[arg-type]
    for step in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw) * (0.01 + step % 3)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)
        optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in weights])


def ours(rule: Rule, decay: float = 0.1, **settings: Any) -> Tensor:
    def make(weights: list[Tensor]) -> Ruled:
        return Ruled([{"params": weights, "rule": rule, "weight_decay": decay}], 0.02)

    return trained(make, **settings)


BETAS, EPS = (0.9, 0.95), 1e-8


def test_adamw_is_torchs() -> None:
    peer = trained(lambda w: torch.optim.AdamW(w, betas=BETAS, eps=EPS, weight_decay=0.1))
    torch.testing.assert_close(ours(AdamW(BETAS, EPS)), peer)


def test_adamw_in_16_bits_stays_near_and_differs() -> None:
    found, full = ours(AdamW16(BETAS, EPS)), ours(AdamW(BETAS, EPS))
    assert 0 < float((found - full).abs().max()) < 0.01


def test_sgd_is_torchs() -> None:
    peer = trained(lambda w: torch.optim.SGD(w, momentum=0.9))
    torch.testing.assert_close(ours(SGD(0.9), decay=0.0), peer)


def test_adafactor_is_torchs() -> None:
    peer = trained(lambda w: torch.optim.Adafactor(w, weight_decay=0.1))
    torch.testing.assert_close(ours(Adafactor()), peer)
    stacked = {"shapes": ((3, 4, 5),)}
    peer = trained(lambda w: torch.optim.Adafactor(w, weight_decay=0.1), **stacked)
    torch.testing.assert_close(ours(Adafactor(), **stacked), peer)


def test_lion_is_the_papers_algorithm() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimizer = Ruled([{"params": [weight], "rule": Lion((0.9, 0.5)), "weight_decay": 0.5}], 0.1)
    for gradient in ([1.0, -1.0, 0.0], [-1.0, -1.0, 1.0]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    # momenta after the first: 1/2, -1/2, 0; then 0.9·m + 0.1·g: 0.35, -0.55, 0.1
    wanted = [(0.95 - 0.1) * 0.95 - 0.1, (0.95 + 0.1) * 0.95 + 0.1, 0.95 * 0.95 - 0.1]
    torch.testing.assert_close(weight.detach(), torch.tensor(wanted))


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 99))
def test_orthogonalised_maps_singular_values_by_the_quintic(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    a, b, c = muon.COEFFICIENTS
    for _ in range(muon.ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(muon.orthogonalised(matrix), left @ values.diag() @ right, atol=1e-3, rtol=0)
    assert float(values.max()) < 1.25


def test_muon_is_torchs_but_for_its_bf16() -> None:
    def peer(weights: list[Tensor]) -> torch.optim.Muon:
        return torch.optim.Muon(weights, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")

    shapes = ((6, 4), (4, 6))
    found, wanted, start = ours(muon.Muon(0.9), shapes=shapes), trained(peer, shapes), trained(peer, shapes, steps=0)
    assert float((found - wanted).norm() / (wanted - start).norm()) < 0.02


def test_muon_updates_each_expert_by_itself() -> None:
    stack = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([muon.orthogonalised(matrix) for matrix in stack])
    torch.testing.assert_close(muon.orthogonalised(stack), alone)


def test_soap_is_pytorch_optimizers() -> None:
    peer = pytest.importorskip("pytorch_optimizer").SOAP

    def make(weights: list[Tensor]) -> Any:
        return peer(weights, betas=BETAS, eps=EPS, weight_decay=0.0, precondition_frequency=soap.EVERY)

    shapes = ((6, 4), (4, 6))
    found = ours(soap.SOAP(BETAS, EPS), decay=0.0, shapes=shapes)
    torch.testing.assert_close(found, trained(make, shapes), atol=2e-4, rtol=1e-3)


def test_soap_without_bases_is_adam_one_step_late() -> None:
    shapes = ((6, 4),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soap, "WIDEST", 1)
        found = ours(soap.SOAP(BETAS, EPS), shapes=shapes, steps=1)
        assert torch.equal(found, trained(lambda w: torch.optim.SGD(w), shapes, steps=0))


def test_shampoo_is_the_papers_algorithm() -> None:
    """Algorithm 2 of arXiv 2309.06497 by hand, roots by SciPy, over three refreshments."""
    from scipy.linalg import fractional_matrix_power

    draw, rate, decay, every = np.random.default_rng(0), 0.02, 0.1, shampoo.EVERY
    gradients = draw.normal(size=(3 * every, 4, 6))
    weight = torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    optimizer = Ruled([{"params": [weight], "rule": shampoo.Shampoo(BETAS, EPS), "weight_decay": decay}], rate)
    wanted, first, second = np.zeros((4, 6)), np.zeros((4, 6)), np.zeros((4, 6))
    left, right = np.zeros((4, 4)), np.zeros((6, 6))
    for step, gradient in enumerate(gradients, start=1):
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        grown = [1 - beta**step for beta in BETAS]
        first, second = (beta * old + (1 - beta) * new for beta, old, new in zip(BETAS, (first, second), (gradient, gradient**2), strict=True))  # fmt: skip
        left, right = (
            0.95 * old + 0.05 * new for old, new in ((left, gradient @ gradient.T), (right, gradient.T @ gradient))
        )
        if step % every == 0:
            ridged = [one / grown[1] + np.eye(len(one)) * shampoo.RIDGE * np.linalg.norm(one / grown[1], 2) for one in (left, right)]  # fmt: skip
            roots = [fractional_matrix_power(one, -1 / 4) for one in ridged]
        direction = adam = first / grown[0] / (np.sqrt(second / grown[1]) + EPS)
        if step >= every:
            turned = roots[0] @ first @ roots[1]
            direction = turned * np.linalg.norm(adam) / np.linalg.norm(turned)
        wanted = (1 - rate * decay) * wanted - rate * direction
    np.testing.assert_allclose(weight.detach().numpy(), wanted, rtol=1e-8)


def test_shampoos_roots_make_a_gradient_orthogonal() -> None:
    """Of one gradient alone L^(-1/4)·G·R^(-1/4) is its polar factor, as of the peer's."""
    peer = pytest.importorskip("pytorch_optimizer.optimizer.utils.matrix").compute_power_svd
    gradient = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, right = gradient @ gradient.mT, gradient.mT @ gradient
    found = shampoo.inverse_root(left, 4) @ gradient @ shampoo.inverse_root(right, 4)
    u, _, v = torch.linalg.svd(gradient)
    torch.testing.assert_close(found, u @ v, atol=2e-3, rtol=0)
    torch.testing.assert_close(shampoo.inverse_root(left, 4), peer(left, 4), atol=0, rtol=0.02)
    assert torch.equal(shampoo.inverse_root(torch.zeros(2, 3, 3), 4), torch.eye(3).expand(2, 3, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soap, "WIDEST", 4)
        assert set(shampoo.Shampoo(BETAS, EPS).fresh(torch.zeros(4, 6))) == {"exp_avg", "exp_avg_sq", "covariance_rows", "root_rows"}  # fmt: skip


DENSE = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, ffn=48, vocab=64)
EXPERTS = ModelSpec(
    family="qwen3_moe", layers=1, hidden=32, heads=2, ffn=48, vocab=64, moe=MoE(experts=4, top_k=2, expert_ffn=24)
)
HYBRID = ModelSpec(family="bamba", layers=2, hidden=64, heads=4, head_dim=16, ffn=96, vocab=64,
                   ssm=SSM(heads=8, head_dim=16, state=8, attention_layers=(1,)))  # fmt: skip


@pytest.mark.parametrize("spec", [DENSE, DENSE.replace(tied_embeddings=True), EXPERTS, HYBRID])
def test_hidden_matrices_are_the_blocks_matrices(spec: ModelSpec) -> None:
    model = build_model(spec, 0)
    found = hidden_matrices(model)
    assert found and all(".layers." in name and dict(model.named_parameters())[name].ndim >= 2 for name in found)
    assert not any("embed" in name or "lm_head" in name or "norm" in name or "conv" in name for name in found)


@pytest.mark.parametrize("kind", [kind for kind in get_args(OptimizerKind) if kind != "adamw-8bit"])
def test_every_kind_has_every_parameter_once_and_learns(kind: OptimizerKind) -> None:
    model = build_model(EXPERTS, 0)
    rate = {"sgd": 0.1, "adafactor": 0.03, "lion": 1e-3}.get(kind, 1e-2)
    optimizer = build_optimizer(model, Optimizer(kind=kind, learning_rate=rate))
    held = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    ids = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(12):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_equal_rules_share_a_group() -> None:
    model = build_model(DENSE, 0)
    assert len(set(rules(model, Optimizer(kind="muon")).values())) == 2
    groups = build_optimizer(model, Optimizer(kind="muon")).param_groups
    assert len(groups) == 3  # embedding and vectors, matrices, head
