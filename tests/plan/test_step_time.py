"""Step time against closed forms and against order: rings, all-reduces, bubbles, rooflines, grids, bandwidth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import collectives, communication, flops, kernels, step
from lablib.plan.efficiency import GPU
from lablib.plan.engines import LAB, MEGATRON
from lablib.plan.grid import Layouts
from lablib.plan.job import Job
from lablib.plan.machine import Machine, architecture, strides
from lablib.plan.params import count, with_adapters
from lablib.plan.ranges import Range
from lablib.specs import Accelerator, Cluster, LabError, LoRA, ModelSpec, MoE, Parallelism, catalog

BASE = ModelSpec(layers=8, hidden=1024, heads=16, kv_heads=8, ffn=4096, vocab=32000)
SPARSE = ModelSpec(
    family="qwen3_moe",
    layers=8,
    hidden=1024,
    heads=16,
    kv_heads=8,
    ffn=4096,
    vocab=32000,
    moe=MoE(experts=8, top_k=2, expert_ffn=512),
)
CARD = Accelerator(
    name="x",
    memory_gib=80,
    bandwidth_gb_s=1000,
    peak_tflops={"bf16": 100},
    measured_tflops={"bf16": 100},
    scaleup_gb_s=100,
    nic_gbit_s=80,
)
PLAIN = GPU.replace(
    matmul=Range.exactly(1.0), sustained={"other": 1.0}, flash={"fa2": {"other": 1.0}}, bandwidth=1.0, collective=1.0, network=1.0,
    latency_seconds=0.0, layer_seconds=0.0, operands=0.0, ragged=0.0, quantising=0.0, elementwise=0.0, narrow=0.0, diagonal=0.0,
    hops=0.0, straggler=0.0, contention=0.0, host_seconds=0.0,
)  # fmt: skip
MACHINE = Machine(Cluster(accelerator=CARD, nodes=4), PLAIN)
NIC = 80 / 8 * 1e9 * 0.92
"""Bytes/s of one card at InfiniBand's share of its line rate."""


def make(model: ModelSpec = BASE, **changes: object) -> Job:
    layout = {name: changes.pop(name) for name in list(changes) if name in Parallelism.model_fields}
    return replace(Job(model, count(model), Parallelism(**layout), seq_len=2048, step_tokens=2**18), **changes)


def on(name: str, nodes: int = 1, **changes: object) -> Machine:
    return Machine(Cluster(accelerator=name, nodes=nodes, **changes), GPU)


def total(job: Job, machine: Machine) -> float:
    return float(sum(step.seconds(job, machine).values()))


def test_a_link_is_the_scale_up_inside_a_domain_and_the_cards_share_outside() -> None:
    assert MACHINE.link(8, 1) == 100e9  # NVLink class
    assert MACHINE.link(16, 1) == pytest.approx(8 * NIC)  # a ring over whole nodes uses every card of the node
    assert MACHINE.link(4, 8) == pytest.approx(NIC)  # one member a node has one card
    assert MACHINE.link(2, 2) == 100e9
    assert MACHINE.link(16, 1, one_card=True) == pytest.approx(NIC)


def test_a_rack_may_be_one_domain() -> None:
    rack = CARD.replace(scaleup_gpus=72)
    machine = Machine(Cluster(accelerator=rack, nodes=16, gpus_per_node=4), PLAIN)
    assert machine.link(64, 1) == 100e9
    job = make(SPARSE, dp_shard=32, ep=8)
    narrow = Machine(Cluster(accelerator=CARD.replace(scaleup_gpus=4), nodes=16, gpus_per_node=4), PLAIN)
    assert step.seconds(job, machine)["ep"] < step.seconds(job, narrow)["ep"]


def test_ranks_lie_tp_innermost_and_pipelines_outermost() -> None:
    assert strides(Parallelism(tp=2, cp=3, dp_shard=5, dp_replicate=7)) == {
        "tp": 1,
        "cp": 2,
        "shard": 2,
        "replicate": 30,
        "pp": 210,
    }


@pytest.mark.parametrize(
    ("name", "generation"),
    [("a100-sxm-40gb", "ampere"), ("rtx-a6000", "ampere"), ("h200-sxm", "hopper"), ("gh200-96gb", "hopper"),
     ("gb300", "blackwell"), ("L40S", "ada"), ("mi300x", "other"), ("tpuv5p", "other")],
)  # fmt: skip
def test_a_name_says_its_generation(name: str, generation: str) -> None:
    assert architecture(name) == generation


def test_compute_is_flops_over_rate() -> None:
    one = make()
    parts = step.micro_batch(one, MACHINE)
    forward = step.forward(one)
    scores, rest = forward["scores"], sum(forward.values()) - forward["scores"]
    assert parts["compute"] == pytest.approx(3 * rest * 2048 / 100e12)
    assert parts["attention"] == pytest.approx((1 + kernels.BACKWARD_ATTENTION) * scores * 2048 / 100e12)
    full = step.micro_batch(make(recompute="full"), MACHINE)
    head = forward["head"]
    assert full["compute"] == pytest.approx((4 * rest - head) * 2048 / 100e12)
    halved = step.micro_batch(make(tp=2), MACHINE)
    assert halved["compute"] == pytest.approx(parts["compute"] / 2)


def test_fused_matmuls_have_the_flops_of_their_parts() -> None:
    for model in (BASE, SPARSE, catalog.models["deepseek-v3"], catalog.models["bamba-9b"]):
        work = sum(2.0 * one.rows * one.cols * one.times for one in kernels.gemms(model))
        forward = step.forward(make(model))
        assert work == pytest.approx(sum(value for part, value in forward.items() if part not in ("scores", "scan")))
    assert [(one.rows, one.cols) for one in kernels.gemms(BASE)] == [
        (1024, 2048),
        (1024, 1024),
        (1024, 8192),
        (4096, 1024),
        (1024, 32000),
    ]


def test_tensor_parallelism_is_four_all_reduces_a_layer() -> None:
    size = 2048 * 1024 * 2
    ring = 2 * size * 3 / 4 / 100e9
    assert step.tensor_parallel(make(tp=4), MACHINE) == pytest.approx(4 * 8 * ring)
    assert step.tensor_parallel(make(tp=4, recompute="full"), MACHINE) == pytest.approx(6 * 8 * ring)
    assert step.tensor_parallel(make(), MACHINE) == 0
    hidden = make(tp=4, engine=LAB.replace(tp_overlap=0.5))
    assert step.tensor_parallel(hidden, MACHINE) == pytest.approx(2 * 8 * ring)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 32), st.sampled_from([1, 2]))
def test_the_bubble_is_stages_less_one_over_micro_batches(pp: int, micro_batches: int, slices: int) -> None:
    one = make(pp=pp, step_tokens=2048 * micro_batches, virtual_stages=slices)
    parts = step.seconds(one, MACHINE)
    busy = sum(parts[name] for name in ("compute", "attention", "elementwise", "launch", "tp", "cp", "ep", "pp"))
    assert one.micro_batches == micro_batches
    assert parts["bubble"] == pytest.approx(busy * (pp - 1) / micro_batches / slices)
    filled = replace(one, layout=one.layout.replace(pp_schedule="zero-bubble"))
    assert step.seconds(filled, MACHINE)["bubble"] == pytest.approx(parts["bubble"] / 3)


def test_the_last_stage_has_the_loss_and_fewer_layers_where_they_do_not_divide() -> None:
    deep = BASE.replace(layers=7)
    _, even = step._stage(make(pp=4), MACHINE)
    _, uneven = step._stage(make(deep, pp=4), MACHINE)
    assert even == 2 and uneven in (1, 2)
    wide = step.micro_batch(make(BASE.replace(vocab=512000), pp=4), MACHINE)["compute"]
    assert wide > step.micro_batch(make(pp=4), MACHINE)["compute"]


def test_sharded_data_parallelism_gathers_twice_and_scatters_once_a_micro_batch() -> None:
    one = make(dp_shard=8, step_tokens=2048 * 8 * 3)
    size = count(BASE).total
    wire = size * 7 / 8 / 100e9
    assert communication.data_parallel(one, MACHINE, 0.0, 8) == pytest.approx(3 * wire * (2 * 2 + 4))
    first = wire * (2 * 2 + 4) / BASE.layers  # with all else hidden, the first layer still waits
    assert communication.data_parallel(one, MACHINE, 1e9, 8) == pytest.approx(first)
    assert communication.data_parallel(make(), MACHINE, 0.0, 8) == 0


def test_zero_1_scatters_and_gathers_once_a_step_and_replicas_all_reduce() -> None:
    size = count(BASE).total
    one = make(dp_shard=4, zero=1, step_tokens=2048 * 4 * 5)
    assert communication.data_parallel(one, MACHINE, 0.0, 8) == pytest.approx((4 + 2) * size * 3 / 4 / 100e9)
    two = make(dp_replicate=4, step_tokens=2048 * 4 * 5)
    assert communication.data_parallel(two, MACHINE, 0.0, 8) == pytest.approx(2 * 4 * size * 3 / 4 / 100e9)
    late = replace(two, engine=LAB.replace(overlap=0.0))
    assert communication.data_parallel(late, MACHINE, 1e9, 8) > communication.data_parallel(two, MACHINE, 1e9, 8)


def test_what_is_hidden_still_slows_compute() -> None:
    busy = Machine(MACHINE.cluster, PLAIN.replace(contention=0.2))
    one = make(dp_shard=8)
    assert communication.data_parallel(one, busy, 1e9, 8) > communication.data_parallel(one, MACHINE, 1e9, 8)


def test_adapters_scatter_only_themselves_and_halve_the_backward_pass() -> None:
    params = with_adapters(BASE, LoRA(rank=4))
    tuned = replace(make(dp_shard=8), params=params, adapters=True)
    gathered = params.total * 7 / 8 / 100e9 * 2 * 2
    scattered = params.trainable * 7 / 8 / 100e9 * 4
    exchanged = communication.data_parallel(tuned, MACHINE, 0.0, 8)
    assert exchanged == pytest.approx(tuned.micro_batches * (gathered + scattered))
    whole, light = (step.micro_batch(job, MACHINE)["compute"] for job in (make(dp_shard=8), tuned))
    assert light == pytest.approx(whole * 2 / 3)


def test_experts_are_sent_for_and_back_in_both_passes() -> None:
    one = make(SPARSE, dp_shard=8, ep=8)
    size = 2048 * 2 * 1024 * 2
    assert communication.expert_parallel(one, MACHINE, 8) == pytest.approx(4 * 8 * size * 7 / 8 / 100e9)
    assert communication.expert_parallel(make(SPARSE, dp_shard=8), MACHINE, 8) == 0
    assert communication.expert_parallel(make(), MACHINE, 8) == 0


def test_a_token_may_cross_the_network_once_for_all_its_experts_of_a_node() -> None:
    plain = collectives.all_to_all(1e9, 16, 1, MACHINE, 8, once=False)
    once = collectives.all_to_all(1e9, 16, 1, MACHINE, 8, once=True)
    assert plain == pytest.approx(1e9 * 8 / 16 / NIC)
    assert once == pytest.approx(plain * 2 * (1 - 0.5**8) / 8)


def test_expert_parallelism_spares_gathering_the_experts() -> None:
    together, apart = (communication.data_parallel(make(SPARSE, dp_shard=8, ep=ep), MACHINE, 0.0, 8) for ep in (1, 8))
    experts = count(SPARSE).parts["experts"]
    micro_batches = make(SPARSE, dp_shard=8).micro_batches
    assert together - apart == pytest.approx(micro_batches * experts * 7 / 8 / 100e9 * 8)


@pytest.mark.parametrize("name", ["rwkv-4-169m", "jamba-v0.1"])
def test_a_scan_is_repeated_with_its_layers(name: str) -> None:
    """Selective recomputation keeps matmuls and attention alone, so it repeats the scan too."""
    apart = {how: kernels.cost(make(catalog.models[name], recompute=how), MACHINE).attention for how in ("none", "selective", "attention")}  # fmt: skip
    scan = flops.scan(catalog.models[name]) * 2048 / (100e12 * kernels.SCAN[0])
    assert apart["selective"] - apart["none"] == pytest.approx(scan)
    if name.startswith("rwkv"):
        assert apart["none"] == apart["attention"] == pytest.approx(3 * scan)


def test_context_parallelism_hides_all_but_a_ring_step_behind_attention() -> None:
    one = make(cp=4)
    size = 2 * 2048 * 8 * 64 * 2
    whole = 3 * 8 * size * 3 / 4 / 100e9
    assert communication.context_parallel(one, MACHINE, 0.0, 8) == pytest.approx(whole)
    assert communication.context_parallel(one, MACHINE, 1e9, 8) == pytest.approx(whole / 3)
    latent = make(catalog.models["deepseek-v3"], cp=4)  # 128 heads: keys of 192 features, values of 128
    sent = communication.context_parallel(latent, MACHINE, 0.0, 61)
    assert sent == pytest.approx(3 * 61 * 2048 * 128 * (192 + 128) * 2 * 3 / 4 / 100e9)


def test_the_optimiser_is_bound_by_memory() -> None:
    assert step.optimizer(make(), MACHINE) == pytest.approx(count(BASE).total * 36 / 1e12)
    assert step.optimizer(make(dp_shard=8), MACHINE) == pytest.approx(count(BASE).total * 36 / 1e12 / 8)


def test_a_step_is_never_faster_than_its_launches_on_a_gpu_and_adds_them_on_a_cpu() -> None:
    slow = PLAIN.replace(layer_seconds=1.0)
    gpu = step.micro_batch(make(), Machine(MACHINE.cluster, slow))
    assert sum(gpu.values()) == pytest.approx(8.0)
    card = CARD.replace(kind="cpu")
    cpu = step.micro_batch(make(), Machine(Cluster(accelerator=card), slow))
    assert cpu["launch"] == 8.0 and sum(cpu.values()) > 8.0


def test_compiled_steps_move_fewer_bytes_and_so_do_fused_losses() -> None:
    machine = on("h100-sxm")
    eager, compiled = (step.micro_batch(make(fused=fused), machine)["elementwise"] for fused in (False, True))
    assert compiled < eager
    again = step.micro_batch(make(recompute="selective"), machine)["elementwise"]
    assert again > eager
    assert step.micro_batch(make(cross_entropy="fused"), machine)["elementwise"] < eager


def test_fp8_is_faster_for_large_matmuls_and_not_for_tiny_ones() -> None:
    machine = on("h100-sxm")
    large = ModelSpec(layers=8, hidden=8192, heads=64, ffn=28672, vocab=32000)
    tiny = ModelSpec(layers=8, hidden=256, heads=4, ffn=1024, vocab=32000)
    for model, faster in ((large, True), (tiny, False)):
        bf16, fp8 = (step.micro_batch(make(model, precision=precision), machine) for precision in ("bf16", "fp8"))
        assert (fp8["compute"] < 0.75 * bf16["compute"]) == faster
        assert fp8["attention"] == bf16["attention"]
        if not faster:
            assert fp8["compute"] > 0.95 * bf16["compute"]


def test_block_formats_run_at_their_rates_with_more_to_quantise() -> None:
    machine = on("b200-sxm")
    model = catalog.models["llama-3-70b"]
    compute = {
        p: step.micro_batch(make(model, precision=p), machine)["compute"] for p in ("bf16", "fp8", "mxfp8", "nvfp4")
    }
    assert compute["nvfp4"] < compute["fp8"] < compute["mxfp8"] < compute["bf16"]


def test_small_batches_and_narrow_slices_cost_more_for_each_token() -> None:
    machine = on("h100-sxm")
    small, large = (step.micro_batch(make(seq_len=n), machine)["compute"] / n for n in (256, 8192))
    assert small > 1.1 * large
    whole, split = (step.micro_batch(make(tp=tp), machine)["compute"] * tp for tp in (1, 8))
    assert split > 1.05 * whole


def test_dimensions_that_are_no_multiple_of_64_are_slower() -> None:
    machine = on("a100-sxm")
    neat, odd = (ModelSpec(layers=8, hidden=1024, heads=16, ffn=ffn, vocab=32000) for ffn in (4096, 4097))
    assert step.micro_batch(make(odd), machine)["compute"] > 1.05 * step.micro_batch(make(neat), machine)["compute"]


def test_power_capped_cards_are_slower_as_the_square_root() -> None:
    card = catalog.accelerators["h100-sxm"]
    full, capped = (
        Machine(Cluster(accelerator=card.replace(tdp_w=watts)), GPU).sustained("bf16") for watts in (700, 500)
    )
    assert capped / full == pytest.approx((500 / 700) ** 0.5)


@pytest.mark.parametrize("name", sorted(name for name, card in catalog.accelerators.items() if card.runnable))
def test_no_card_sustains_more_than_its_best_second(name: str) -> None:
    machine = Machine(Cluster(accelerator=catalog.accelerators[name]), GPU)
    assert 0.4 * machine.rate("bf16") < machine.sustained("bf16") <= machine.rate("bf16")


def test_watts_for_the_peak_decide_what_a_board_keeps() -> None:
    """The H20 has an H100's cooling for a seventh of its cores; the L40S has twice the RTX 4090's stated rate in fewer watts."""
    kept = {name: Machine(Cluster(accelerator=catalog.accelerators[name]), GPU) for name in ("h20-sxm", "h100-sxm", "h100-pcie", "l40s", "rtx-4090")}  # fmt: skip
    share = {name: machine.sustained("bf16") / machine.rate("bf16") for name, machine in kept.items()}
    assert share["h20-sxm"] == 1 > share["h100-sxm"] > share["h100-pcie"]
    assert share["rtx-4090"] > share["l40s"]


def test_unfused_attention_is_slower_the_longer_the_sequence() -> None:
    machine = on("a100-sxm")
    ratios = []
    for seq in (2048, 8192):
        flash, plain = (step.micro_batch(make(seq_len=seq, engine=LAB.replace(attention=kind)), machine)["attention"] for kind in ("fa2", "math"))  # fmt: skip
        ratios.append(plain / flash)
    assert ratios[0] > 1 and ratios[1] > 1


def test_offloading_costs_the_bus_and_activations_hide_behind_compute() -> None:
    machine = on("h100-sxm")
    job = make(catalog.models["llama-3-8b"], dp_shard=8, recompute="full", step_tokens=2**16)
    times = {kind: total(replace(job, offload=kind), machine) for kind in ("none", "activations", "optimizer", "all")}
    assert times["none"] < times["activations"] < 1.1 * times["none"]
    assert times["activations"] < times["optimizer"] < times["all"]
    grace = on("gh200-96gb", nodes=1)
    assert grace.host_bytes_s > 5 * machine.host_bytes_s


def test_a_graphed_mixture_of_experts_does_not_wait_for_the_host() -> None:
    machine = on("b200-sxm")
    waits, graphed = (
        make(SPARSE, engine=MEGATRON.replace(**now)) for now in ({}, {"layer_seconds": 0.0, "moe_seconds": 0.0})
    )
    assert step.micro_batch(graphed, machine)["launch"] == 0 < step.micro_batch(waits, machine)["launch"]


def test_an_unknown_rate_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(LabError, match=r"precision='fp8': no rate is known for x \(known: bf16\)"):
        step.seconds(make(precision="fp8"), MACHINE)


def test_the_network_that_a_cluster_names_shows_in_the_step() -> None:
    big = make(catalog.models["llama-3-8b"], dp_shard=64, step_tokens=2**19)
    quiet, lossy, slow = (
        total(big, on("h100-sxm", 8, fabric=fabric)) for fabric in ("infiniband-ndr", "roce-400", "roce-200")
    )
    assert quiet < lossy < slow


def test_tensor_parallelism_over_the_network_costs_more_than_inside_a_domain() -> None:
    inside, across = (make(catalog.models["llama-3-70b"], tp=tp, dp_shard=64 // tp) for tp in (8, 16))
    machine = on("h100-sxm", 8)
    assert step.seconds(across, machine)["tp"] > 2 * step.seconds(inside, machine)["tp"]


@given(
    st.floats(1.05, 4), st.sampled_from(["scaleup_gb_s", "nic_gbit_s", "bandwidth_gb_s"]), st.sampled_from([1, 2, 4])
)
@settings(max_examples=40, deadline=None)
def test_more_bandwidth_is_never_slower(factor: float, what: str, tp: int) -> None:
    card = catalog.accelerators["h100-sxm"]
    better = card.replace(**{what: getattr(card, what) * factor})
    job = make(SPARSE, tp=tp, dp_shard=8, pp=2, ep=4)
    before, after = (total(job, Machine(Cluster(accelerator=one, nodes=4), GPU)) for one in (card, better))
    assert after <= before * (1 + 1e-12)


LAYOUTS = st.fixed_dictionaries({
    "dp_replicate": st.sampled_from([1, 2]), "dp_shard": st.sampled_from([1, 4, 16]), "tp": st.sampled_from([1, 2, 8, 16]),
    "pp": st.sampled_from([1, 2, 3, 8]), "cp": st.sampled_from([1, 2, 4]), "ep": st.sampled_from([1, 2]),
    "micro_batch_size": st.sampled_from([1, 2]), "virtual_stages": st.sampled_from([1, 2]),
})  # fmt: skip


@given(
    st.lists(
        LAYOUTS.filter(lambda one: one["dp_shard"] * one["cp"] * one["tp"] % one["ep"] == 0), min_size=1, max_size=6
    ),
    st.sampled_from([BASE, SPARSE, catalog.models["deepseek-v3"], catalog.models["bamba-9b"]]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from(["bf16", "fp8"]),
    st.sampled_from(["none", "full", "selective-op"]),
    st.sampled_from([LAB, MEGATRON]),
)
@settings(max_examples=40, deadline=None)
def test_a_grid_is_its_layouts_one_by_one(
    chosen: list[dict[str, int]],
    model: ModelSpec,
    zero: int,
    sequence: bool,
    precision: str,
    recompute: str,
    engine: object,
) -> None:
    machine = on("h100-sxm", 64)
    arrays = {name: np.array([one[name] for one in chosen]) for name in chosen[0]}
    shared = {"zero": zero, "sequence_parallel": sequence}
    changes = {"precision": precision, "recompute": recompute, "engine": engine}
    grid = step.seconds(replace(make(model, **changes), layout=Layouts(**arrays, **shared)), machine)
    for place, one in enumerate(chosen):
        plain = step.seconds(make(model, **one, **shared, **changes), machine)
        assert set(plain) == set(grid)
        for cause, value in plain.items():
            assert np.broadcast_to(grid[cause], len(chosen))[place] == pytest.approx(value, rel=1e-12), cause
            assert value >= 0
