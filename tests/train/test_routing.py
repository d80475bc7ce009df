"""Balance of a MoE's experts: against transformers' loss, DeepSeek's rule by hand, other layouts, and an expert left to die."""

from __future__ import annotations

import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import on_ranks
from layouts import MODELS, Case, Trained, sequences, train_all
from tiny import MODEL, STOP, Job, attempt, curve, new_run, recipe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeTopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from lablib.models.build import build_model
from lablib.models.decoder import layer_number
from lablib.models.layout import Place
from lablib.models.recompute import apply_recompute
from lablib.runs import Run
from lablib.specs import Balance, LabError, ModelSpec, Parallelism, Ref, Schedule
from lablib.specs.balance import SELECTS_BY_BIAS
from lablib.specs.families import members
from lablib.train.able import check
from lablib.train.distributed import World
from lablib.train.insight.routers import EXPECTED, PATIENCE, Collapse, measures, summary
from lablib.train.routing import BIAS, LOADS, Routing, relative, routers
from lablib.train.step import Stepper

P = Parallelism
ALONE = World(0, 1, torch.device("cpu"))
EXPERTS, TOP_K = 8, 2
EVERYTHING = Balance(loss=0.3, sequence_loss=0.2, z_loss=0.1)
BIASED = Balance(loss=0.3, sequence_loss=0.2, bias_rate=1e-2)
SMALL: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 32}
SOFTMAX, SIGMOID = (MODELS[name].replace(**SMALL) for name in ("moe", "biased"))


def still(
    spec: ModelSpec, balance: Balance | None, recompute: Any = "none", rate: float = 0.0, steps: int = 10
) -> Stepper:
    """Takes steps of SGD at `rate`, in one process."""
    model = build_model(spec, 0)
    apply_recompute(model, recompute)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    place = Place(0, 1, 1)
    routing = Routing(model, spec, ALONE, place, balance=balance, steps=steps)
    return Stepper(model, optimizer, ALONE, place, 1e9, False, routing=routing)


def gradients(step: Stepper, batches: list[Any]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    names = {id(weight): name for name, weight in step.model.named_parameters()}

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        found.update({names[id(weight)]: weight.grad.clone() for weight in weights if weight.grad is not None})

    handle = step.optimizer.register_step_pre_hook(keep)
    step(batches)
    handle.remove()
    return found


def added(spec: ModelSpec, balance: Balance, **more: Any) -> dict[str, torch.Tensor]:
    """What `balance` adds to the gradient of the second of two equal steps that change nothing."""
    batches = [sequences(range(4)), sequences(range(4, 8))]
    with_it, without = still(spec, balance, **more), still(spec, None, **more)
    with_it(batches), without(batches)
    own, plain = gradients(with_it, batches), gradients(without, batches)
    return {name: own[name] - plain[name] for name in own}


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    return scale > 1e-4 and all(torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-4 * scale) for name in wanted)  # fmt: skip


def seen_logits(spec: ModelSpec) -> tuple[Any, list[torch.Tensor]]:
    """A model that has read all eight sequences at once, and its routers' logits by layer."""
    model, logits = build_model(spec, 0), []
    for router in routers(model).values():
        router.register_forward_hook(lambda module, given, out: logits.append(out[0]))
    batch = sequences(range(8))
    model(input_ids=batch.inputs, position_ids=batch.positions, use_cache=False)
    return model, logits


def grads_of(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_loss_is_transformers_of_each_layer() -> None:
    """Which has top_k where experts are evenly used, over micro-batches together."""
    model, logits = seen_logits(SOFTMAX)
    losses = [load_balancing_loss_func((one,), EXPERTS, TOP_K) / TOP_K for one in logits]
    step = still(SOFTMAX, Balance(loss=0.1))
    row = measures(step([sequences(range(4)), sequences(range(4, 8))]).routed)
    for number, loss in enumerate(losses):
        assert row[f"balance.{number}"] == pytest.approx(loss.item(), rel=1e-6)
    wanted = grads_of(model, 0.1 * sum(losses))
    assert close(added(SOFTMAX, Balance(loss=0.1)), wanted)


def test_the_z_loss_is_the_mean_square_of_log_z() -> None:
    model, logits = seen_logits(SOFTMAX)
    wanted = grads_of(model, 0.1 * sum(one.logsumexp(-1).square().mean() for one in logits))
    assert close(added(SOFTMAX, Balance(z_loss=0.1)), wanted)


def test_the_loss_of_sequences_is_deepseeks() -> None:
    """arXiv 2412.19437 eq. 17–20, of sigmoid scores, sequence by sequence."""
    model, logits = seen_logits(SIGMOID)
    total: Any = 0.0
    for one in logits:
        for sequence in one.reshape(8, -1, EXPERTS):
            scores = sequence.sigmoid()
            chosen = torch.nn.functional.one_hot(scores.topk(TOP_K).indices, EXPERTS).sum(1).float()
            share = (scores / scores.sum(-1, keepdim=True)).mean(0)
            total = total + (EXPERTS / TOP_K * chosen.mean(0) * share).sum() / 8
    assert close(added(SIGMOID, Balance(sequence_loss=0.1)), grads_of(model, 0.1 * total))


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_counts_each_token_once(recompute: Any) -> None:
    step = still(SOFTMAX, EVERYTHING, recompute)
    loads = step([sequences(range(4))]).routed[LOADS]
    assert loads.sum(1).tolist() == [sequences(range(4)).inputs.numel() * TOP_K] * 2
    assert close(added(SOFTMAX, EVERYTHING, recompute=recompute), added(SOFTMAX, EVERYTHING))


def test_an_evaluation_is_not_counted_and_a_step_tried_twice_once() -> None:
    step = still(SOFTMAX, EVERYTHING)
    step.routing.begin([sequences(range(4))])
    with torch.no_grad():
        step.sequence_losses(sequences(range(4)))
    assert not step.routing.end().any()
    once = step([sequences(range(4))]).routed
    assert torch.equal(step([sequences(range(4))], lambda *_: True).routed, once)


def test_the_bias_follows_the_sign_of_what_a_load_lacks_and_is_frozen_at_the_end() -> None:
    step = still(SIGMOID, Balance(bias_rate=0.1, bias_frozen=0.8))
    biases = {number: getattr(router, BIAS) for number, router in routers(step.model).items()}
    assert sorted(biases) == [1]
    wanted = {number: torch.zeros(EXPERTS) for number in biases}
    for number in range(4):
        loads = step([sequences(range(8))]).routed[LOADS]
        for layer, bias in biases.items():
            mean = sum(loads[layer].tolist()) / EXPERTS
            rise = [0.1 * ((load < mean) - (load > mean)) for load in loads[layer].tolist()]
            wanted[layer] += torch.tensor(rise) * (number < 2)
            assert torch.allclose(bias, wanted[layer], atol=1e-6)
    assert all(bias.any() for bias in biases.values())


def test_a_step_that_is_not_finite_moves_no_bias() -> None:
    step = still(SIGMOID, BIASED)
    next(iter(routers(step.model).values())).weight.data.fill_(math.inf)
    assert not step([sequences(range(4))]).finite
    assert not any(getattr(router, BIAS).any() for router in routers(step.model).values())


LAYOUTS = {
    "whole": Case("moe", P(micro_batch_size=8), balance=EVERYTHING),
    "biased, whole": Case("biased", P(micro_batch_size=8), balance=BIASED),
}
TWO = {
    "ep": Case("moe", P(dp_shard=2, ep=2), balance=EVERYTHING),
    "cp": Case("moe", P(cp=2, micro_batch_size=4), balance=EVERYTHING),
    "biased, dp": Case("biased", P(dp_shard=2, micro_batch_size=4), balance=BIASED),
    "biased, zero bubble": Case("biased", P(pp=2, micro_batch_size=2, pp_schedule="zero-bubble"), balance=BIASED),
}
MORE = {
    "dp": Case("moe", P(dp_shard=2, micro_batch_size=2), balance=EVERYTHING),
    "tp": Case("moe", P(tp=2, micro_batch_size=8), balance=EVERYTHING),
    "recomputed": Case("moe", P(cp=2, micro_batch_size=4), recompute="full", balance=EVERYTHING),
    "biased, pp": Case("biased", P(pp=2, micro_batch_size=2), balance=BIASED),
}
BUG = Case("biased", P(dp_shard=2, micro_batch_size=4), "loads of own rank only", balance=BIASED)


@cache
def one(model: str) -> Trained:
    balance = BIASED if model == "biased" else EVERYTHING
    found = train_all([Case(model, P(micro_batch_size=1), balance=balance)])[0]
    assert isinstance(found, Trained)
    return found


@cache
def two() -> dict[str, Trained]:
    cases = {**TWO, "bug": BUG}
    return dict(zip(cases, on_ranks(2, train_all, list(cases.values())), strict=True))


@cache
def more() -> dict[str, Trained]:
    return dict(zip(MORE, on_ranks(2, train_all, list(MORE.values())), strict=True))


def agrees(found: Trained, model: str) -> bool:
    loss, norm, _, _ = found.differences(one(model))
    biases = [name for name in found.weights if name.endswith(BIAS)]
    assert bool(biases) == (model == "biased")
    return loss < 2e-6 and norm < 1e-5 and all((found.weights[n] == one(model).weights[n]).all() for n in biases)


@pytest.mark.parametrize("name", LAYOUTS)
def test_accumulation_does_not_matter(name: str) -> None:
    found = train_all([LAYOUTS[name]])[0]
    assert isinstance(found, Trained) and agrees(found, LAYOUTS[name].model)


@pytest.mark.parametrize("name", TWO)
def test_two_processes_balance_as_one(name: str) -> None:
    assert agrees(two()[name], TWO[name].model)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_other_layouts_balance_as_one_too(name: str) -> None:
    assert agrees(more()[name], MORE[name].model)


def test_loads_that_are_not_summed_show() -> None:
    assert not agrees(two()["bug"], "biased")


def test_a_resumed_run_is_bit_for_bit_the_same(root: Path, data: Ref) -> None:
    spec = MODEL.replace(family="glm4_moe", qk_norm=False, moe=MODELS["biased"].moe)
    made = recipe(data, model=spec, balance=BIASED)
    whole, cut = new_run(root, made), new_run(root, made)
    attempt(Job(whole, made))
    attempt(Job(cut, made, signal_after=(4, STOP)))
    again = Path(shutil.copytree(cut, root / "again"))
    attempt(Job(again, made))
    assert curve(again) == curve(whole)
    assert (again / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    assert [row["balance"] for row in Run.open(again).rows()] == [row["balance"] for row in Run.open(whole).rows()]


def unliked(spec: ModelSpec, balance: Balance | None) -> list[dict[str, float]]:
    """`measures` of 25 steps of a model whose routers begin with an expert that no token likes."""
    step = still(spec, balance, rate=0.3, steps=25)
    for router in routers(step.model).values():
        router.register_forward_pre_hook(_with_a_one)
        router.weight.data[0, -1] = -0.3
    return [measures(step([sequences(range(8 * n, 8 * n + 8))]).routed) for n in range(25)]


def _with_a_one(router: Any, given: Any) -> Any:
    return (torch.cat([given[0][..., :-1], torch.ones_like(given[0][..., -1:])], -1),)


@pytest.mark.parametrize(("spec", "balance"), [(SOFTMAX, Balance(loss=0.3)), (SIGMOID, Balance(bias_rate=0.005))])
def test_an_expert_dies_without_balance_and_lives_with_it(spec: ModelSpec, balance: Balance) -> None:
    alone, balanced = unliked(spec, None), unliked(spec, balance)
    assert all(row["dead.1"] == 1 for row in alone) and balanced[0] == alone[0]
    assert summary(alone[-1])["dead_experts"] == sum(row for name, row in alone[-1].items() if name[:5] == "dead.")
    assert not any(row["dead.1"] for row in balanced[-5:])
    violation, without = (sum(row["load_max.1"] - 1 for row in rows[-5:]) for rows in (balanced, alone))
    assert violation < 0.6 * without


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=1, max_size=3))
def test_measures_are_those_of_the_loads(loads: list[list[int]]) -> None:
    rows = measures(torch.tensor([loads, [[1] * 4] * len(loads)], dtype=torch.float64))
    for number, row in enumerate(loads):
        if not sum(row):
            assert f"experts.{number}" not in rows
            continue
        entropy = -sum(load / sum(row) * math.log(load / sum(row)) for load in row if load)
        assert rows[f"experts.{number}"] == pytest.approx(math.exp(entropy) / 4)
        assert rows[f"load_max.{number}"] == pytest.approx(max(row) / (sum(row) / 4))
        assert rows[f"dead.{number}"] == row.count(0)
        assert rows[f"balance.{number}"] == pytest.approx(1.0)  # scores are even
        assert rows[f"experts.{number}"] >= 1 / rows[f"load_max.{number}"] - 1e-9


def test_a_collapse_is_named_once_and_an_unlucky_expert_never() -> None:
    def row(share: float, dead: float, mean: float) -> dict[str, float]:
        return {"experts.3": share, "dead.3": dead, "load_mean.3": mean, "load_max.3": 2.0}

    ill, starved, unlucky, well = row(0.3, 0, 5), row(0.9, 1, EXPECTED), row(0.9, 1, 5), row(0.9, 0, 99)
    for bad in (ill, starved):
        watched = Collapse()
        told = [bool(watched.observe(bad)) for _ in range(2 * PATIENCE)]
        assert told == [number == PATIENCE - 1 for number in range(2 * PATIENCE)]
        watched.observe(well)
        assert [len(watched.observe(bad)) for _ in range(PATIENCE)][-1] == 1
    assert not any(watched.observe(unlucky) for _ in range(2 * PATIENCE))


def test_an_even_load_is_its_own_mean() -> None:
    assert torch.equal(relative(torch.tensor([[3.0, 3.0], [4.0, 0.0], [0.0, 0.0]])), torch.tensor([[1.0, 1], [2, 0], [0, 0]]))  # fmt: skip


def test_every_familys_routers_are_found() -> None:
    for family in members("moe"):
        model = build_model(next(one for one in MODELS.values() if one.family == family), 0)
        names = [name for name, _ in model.named_parameters() if "experts" in name or "block_sparse_moe" in name]
        found = routers(model)
        assert set(found) == {layer_number(name) for name in names} - {None}
        biased = all(isinstance(router, DeepseekV3TopkRouter | Glm4MoeTopkRouter) for router in found.values())
        assert biased == all(hasattr(router, BIAS) for router in found.values()) == (family in SELECTS_BY_BIAS)


def test_what_cannot_be_is_refused(data: Ref) -> None:
    sparse = recipe(data, model=MODEL.replace(family="qwen3_moe", moe=MODELS["moe"].moe), schedule=Schedule())
    with pytest.raises(LabError, match=r"balance.bias_rate=0.001.*qwen3_moe.*balance.loss"):
        check(sparse.replace(balance=Balance(bias_rate=1e-3)))
    with pytest.raises(LabError, match=r"balance.z_loss=0.001.*sigmoid"):
        check(sparse.replace(model=MODELS["biased"], balance=Balance(z_loss=1e-3)))
    with pytest.raises(LabError, match="no experts"):
        recipe(data, balance=Balance(loss=0.01))
    for nothing in ({}, {"bias_frozen": 0.5}):
        with pytest.raises(LabError, match="it does nothing"):
            Balance(**nothing)
    assert sparse.replace(balance=Balance(loss=0.01)).science_hash != sparse.science_hash
