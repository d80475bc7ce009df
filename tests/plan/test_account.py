"""The account behind a plan: formulas that give the numbers beside them, causes under their own names, prices of every kind."""

from __future__ import annotations

import math
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import Estimate, activations, anatomy, estimate, flops, goodput, guide, market
from lablib.plan.activations import Style
from lablib.plan.efficiency import of
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.plan.estimate import _held
from lablib.plan.memory import GIB
from lablib.plan.ranges import Range
from lablib.plan.reverse import plan_for
from lablib.plan.search import find_layouts
from lablib.specs import Accelerator, Cluster, LabError, Optimizer, Parallelism, Pretrain, catalog

NODE = Cluster(accelerator="h100-sxm")


def recipe(**changes: object) -> Pretrain:
    base = {"model": "llama-3.1-8b", "tokens": "100B", "seq_len": 8192, "batch_tokens": "4M", "parallelism": Parallelism(dp_shard=64)}  # fmt: skip
    return Pretrain(**{**base, **changes})


@settings(max_examples=40, deadline=None)
@given(
    zero=st.sampled_from([1, 2, 3]),
    kind=st.sampled_from(sorted(OPTIMIZER_BYTES)),
    loss=st.sampled_from(["full", "fused", "chunked"]),
    shard=st.sampled_from([1, 8, 64]),
)
def test_formulas_of_memory_give_the_numbers_beside_them(zero: int, kind: str, loss: str, shard: int) -> None:
    """Read the bytes off each formula, multiply by what it names, and compare with the part of the plan."""
    layout = Parallelism(dp_shard=shard, dp_replicate=64 // shard, zero=zero)
    plan = estimate(
        recipe(parallelism=layout, optimizer=Optimizer(kind=kind), cross_entropy=loss), NODE.replace(nodes=8)
    )
    said = {entry.name: entry for entry in plan.ledger}
    sharded = {"params": 3, "grads": 2, "optimizer": 1}
    for part, stage in sharded.items():
        if part not in plan.memory.parts or not plan.memory.parts[part]:
            continue
        entry = said[f"memory.{part}"]
        size = float(re.match(r"([\d.]+) bytes", entry.formula)[1])  # type: ignore[index]
        ranks = shard if zero >= stage and shard > 1 else 1
        assert (f"dp_shard {shard}" in entry.inputs) == (ranks > 1)
        assert plan.memory.parts[part] == pytest.approx(size * plan.params.total / ranks / GIB, rel=1e-6)
    if plan.memory.parts["logits"]:
        entry = said["memory.logits"]
        size = float(re.search(r"([\d.]+) bytes", entry.formula)[1])  # type: ignore[index]
        tokens = 8192 if loss == "full" else 1024
        head = re.search(r"hidden × (\d) bytes", entry.formula)
        assert (head is not None) == (loss == "fused")
        more = 128256 * 4096 * int(head[1]) if head else 0
        assert plan.memory.parts["logits"] == pytest.approx((size * tokens * 128256 + more) / GIB, rel=1e-6)


def test_each_cause_of_a_steps_time_has_a_row_with_rates() -> None:
    plan = estimate(recipe(parallelism=Parallelism(dp_shard=16, tp=2, pp=2)), NODE.replace(nodes=8, fabric="roce-400"))
    rows = {entry.name.removeprefix("step."): entry for entry in plan.ledger if entry.name.startswith("step.")}
    assert set(rows) == set(plan.step_parts)
    assert "roce-400" in rows["dp"].inputs and "TFLOP/s bf16" in rows["compute"].inputs
    assert "pp 2" in rows["bubble"].inputs


def test_saving_and_evaluating_are_booked_as_what_they_are() -> None:
    often = goodput.of(64, 16e10, interval=60.0)
    assert often.parts["checkpoints"] > 0.03 and often.parts["lost work"] < 0.005
    looking = goodput.of(64, 16e10, evaluation=0.3)
    wall = 1 / looking.effective.mid
    assert looking.parts["evaluation"] * wall == pytest.approx(0.3 * goodput.SLOW.mid)
    assert looking.parts["lost work"] < 0.005
    for one in (often, looking):
        assert sum(one.parts.values()) == pytest.approx(1 - one.effective.mid, abs=1e-3)


def test_a_run_that_failures_would_never_let_finish_is_said_to_be_one() -> None:
    made = guide.ROWS[3][3]()
    plan = estimate(made, NODE.replace(nodes=made.gpus // 8))
    said = " ".join(plan.warnings)
    assert "hardly advance" in said and not re.search(r"\d{4,}%", said)
    assert goodput.cost(0.12) == "failures cost 12%"


def test_machines_of_ones_own_cost_nothing() -> None:
    plan = estimate(recipe(), NODE.replace(nodes=8, price_per_gpu_hour=0))
    assert plan.dollars == Range.exactly(0.0) and plan.gpu_hours.mid > 0
    with pytest.raises(LabError, match="costs nothing here"):
        plan_for("$50k", cluster=NODE.replace(price_per_gpu_hour=0))
    with pytest.raises(LabError, match="price_per_gpu_hour"):
        NODE.replace(price_per_gpu_hour=math.inf)


def test_reserved_capacity_costs_its_whole_term() -> None:
    made = market.offers(recipe(tokens="1B"), NODE.replace(nodes=8))
    reserved = next(offer for offer in made if offer.pricing == "reserved-1y")
    own = next(offer for offer in made if offer.pricing == "on-demand" and offer.provider == reserved.provider)
    assert reserved.dollars.mid == pytest.approx(reserved.usd_per_gpu_hour * 64 * market.HOURS_A_YEAR)
    assert made.index(reserved) > made.index(own) and "whole term" in market.text([reserved])


def test_layouts_are_searched_under_every_switch_and_wrong_ones_are_refused() -> None:
    found = find_layouts("llama-3-8b", NODE, offload="optimizer")
    assert found.fitting and found.best.step_parts["offload"] > 0
    price = estimate(found.best.recipe(), NODE).step_seconds
    assert price == pytest.approx(sum(found.best.step_parts.values()))
    wrong: dict[str, object] = {
        "offload": "disk", "optimizer": "sophia", "cross_entropy": "liger", "pp_schedule": "foo", "reduce_dtype": "fp8",
        "micro_batch_sizes": [-1], "virtual_stages": [], "recompute": [], "gpus": [],
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(LabError, match=name):
            find_layouts("llama-3-8b", NODE, **{name: value})  # type: ignore[arg-type]


def test_a_crowded_expert_rank_is_what_the_others_wait_for() -> None:
    """Twice the tokens on the busiest rank: twice the experts' part of compute and of the all-to-all, nothing else."""
    layout = Parallelism(dp_shard=64, ep=8)
    even, crowded = (
        estimate(recipe(model="qwen3-30b-a3b", seq_len=4096, parallelism=layout, recompute="full", expert_imbalance=by), NODE.replace(nodes=8))
        for by in (1.0, 2.0)
    )  # fmt: skip
    assert crowded.step_parts["ep"] == pytest.approx(2 * even.step_parts["ep"], rel=0.1), "but for latencies"
    assert even.step_parts["compute"] < crowded.step_parts["compute"] < 2 * even.step_parts["compute"]
    assert crowded.step_parts["attention"] == even.step_parts["attention"]
    keeping = [
        estimate(recipe(model="qwen3-30b-a3b", seq_len=4096, parallelism=layout, expert_imbalance=by), NODE.replace(nodes=8))
        for by in (1.0, 2.0)
    ]  # fmt: skip
    assert keeping[1].memory.parts["activations"] > keeping[0].memory.parts["activations"]
    alone = [recipe(model="qwen3-30b-a3b", seq_len=4096, expert_imbalance=by) for by in (1.0, 2.0)]
    first, second = (estimate(one, NODE.replace(nodes=8)).step_seconds for one in alone)
    assert first == second, "whoever holds all experts computes all of its tokens"
    assert alone[0].science_hash == alone[1].science_hash


def test_the_account_is_written_when_it_is_read_and_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    from lablib.plan import ledger

    written = []
    really = ledger._rows
    monkeypatch.setattr(ledger, "_rows", lambda *given: written.append(1) or really(*given))
    plan = estimate(recipe(), NODE.replace(nodes=8))
    assert plan.fits and not written
    again = pickle.loads(pickle.dumps(plan))
    assert written == [1] and again == plan and Estimate.from_json(plan.to_json()) == plan
    assert [entry.name for entry in plan.ledger][:2] == ["params.total", "params.active"]


CPU = Cluster(accelerator=Accelerator(name="known", kind="cpu", memory_gib=64, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1}), gpus_per_node=2)  # fmt: skip


def test_the_copy_of_an_asynchronous_checkpoint_is_in_the_account() -> None:
    """4 bytes of weights and 8 of AdamW's moments, on the stage that the peak is of, in every plan of the recipe."""
    small = {"model": "smollm2-135m", "seq_len": 256, "batch_tokens": 8192, "precision": "fp32", "async_checkpoints": True}  # fmt: skip
    wanted = recipe(**small, parallelism=Parallelism(dp_shard=2))
    plan = estimate(wanted, CPU)
    assert plan.memory.parts["checkpoint copy"] == pytest.approx(12 * plan.params.total / 2 / GIB)
    assert "memory.checkpoint copy" in plan.explain() and Estimate.from_json(plan.to_json()) == plan
    assert _held(wanted, CPU, of(CPU), None)[0].memory == plan.memory
    staged = estimate(recipe(**small, recompute="full", parallelism=Parallelism(pp=2, dp_shard=4)), NODE).memory
    assert staged.host_gib == pytest.approx(staged.parts["params"] + staged.parts["optimizer"])


def test_every_optimiser_has_its_own_time() -> None:
    """Fewer bytes of states are read and written; Muon's iterations are matmuls of whole matrices, which the ranks share out."""
    found = {kind: estimate(recipe(optimizer=Optimizer(kind=kind)), NODE.replace(nodes=8)).step_parts["optimizer"] for kind in OPTIMIZER_BYTES}  # fmt: skip
    assert (
        found["adafactor"] < found["adamw-8bit"] < found["adamw-bf16"] == found["sgd"] < found["adamw"] < found["muon"]
    )
    alone = [estimate(recipe(optimizer=Optimizer(kind="muon"), parallelism=Parallelism(dp_shard=ranks)), NODE.replace(nodes=8)) for ranks in (16, 64)]  # fmt: skip
    assert alone[0].step_parts["optimizer"] > 2 * alone[1].step_parts["optimizer"], (
        "whole matrices do not divide evenly"
    )
    layer = 4096 * (4096 + 1024 + 1024 + 4096), 3 * 4096 * 14336
    turns = 5 * (6 * 4096**3 + 4 * 1024**2 * 4096 + 2 * 1024**3 + 2 * (4 * 4096**2 * 14336 + 2 * 4096**3))
    assert sum(layer) * 32 == pytest.approx(6.98e9, rel=0.01), "the matrices of an 8B"
    extra = found["muon"] - found["sgd"]
    sent = 2 * 4 * sum(layer) * 32 / 64 * 56 / 64  # bytes to other nodes, there and back
    assert 0.5 < extra / (turns / 989e12 + sent / 50e9) < 2, (
        "one matrix of each of four shapes a rank, at the card's rates"
    )


def test_offloading_what_is_not_there_is_said() -> None:
    idle, moved = (estimate(recipe(offload="activations", recompute=how), NODE.replace(nodes=8)) for how in ("selective", "full"))  # fmt: skip
    assert any("only time is lost" in words for words in idle.warnings)
    assert not any("only time is lost" in words for words in moved.warnings)


def test_the_compilers_budget_lies_between_keeping_everything_and_every_layers_input() -> None:
    plans = [estimate(recipe(recompute=how, compile=True), NODE.replace(nodes=8)) for how in ("full", "budget", "none")]
    full, half, none = (plan.memory.parts["activations"] for plan in plans)
    assert full < half < none and half == pytest.approx((full + none) / 2, rel=0.1)
    assert plans[0].step_seconds > plans[1].step_seconds > plans[2].step_seconds
    with pytest.raises(LabError, match="set compile=True"):
        recipe(recompute="budget")


def test_what_a_budget_repeats_is_what_a_knapsack_drops() -> None:
    """Keep results of most FLOPs a byte first until half of a compiled Llama-3-8B's activation bytes are kept."""
    spec, style = catalog.models["llama-3.1-8b"], Style(2, 2, True, False, False)
    room = (activations.total(spec, style).each(1, False) - spec.layers * 2 * spec.hidden) / 2
    room -= spec.layers * 2 * spec.hidden  # attention's result costs most to compute again
    results = sorted(
        (
            (one.rows, 2.0 * one.cols * one.copies)
            for one in anatomy.matrices(spec)
            if one.part not in ("embedding", "head")
        ),
        reverse=True,
    )  # (FLOPs a byte, bytes a token)
    done = again = 0.0
    for density, size in results:
        held = min(size, max(0.0, room))
        room, done, again = room - size, done + density * size, again + density * (size - held)
    assert again / done == pytest.approx(flops.BUDGET_AGAIN, abs=0.03)
