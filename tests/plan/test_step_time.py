"""Step time against closed forms: ring collectives, Megatron's all-reduces, the pipeline's bubble, the roofline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.plan import step
from lablib.plan.efficiency import GPU
from lablib.plan.job import Job
from lablib.plan.machine import Machine, strides
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
    matmul=Range.exactly(1.0), attention=1.0, bandwidth=1.0, collective=1.0, latency_seconds=0.0, layer_seconds=0.0
)
MACHINE = Machine(Cluster(accelerator=CARD, nodes=4), PLAIN)


def make(model: ModelSpec = BASE, **changes: object) -> Job:
    layout = {name: changes.pop(name) for name in list(changes) if name in Parallelism.model_fields}
    return replace(Job(model, count(model), Parallelism(**layout), seq_len=2048, step_tokens=2**18), **changes)


def test_a_link_is_the_scale_up_inside_a_node_and_the_cards_share_outside() -> None:
    assert MACHINE.link(8, 1) == 100e9  # NVLink class
    assert MACHINE.link(16, 1) == 8 * 10e9  # a ring over whole nodes uses every card of the node: 8 × 80 Gbit/s
    assert MACHINE.link(4, 8) == 10e9  # one member a node has one card
    assert MACHINE.link(2, 2) == 100e9


def test_ranks_lie_tp_innermost_and_pipelines_outermost() -> None:
    assert strides(Parallelism(tp=2, cp=3, dp_shard=5, dp_replicate=7)) == {
        "tp": 1,
        "cp": 2,
        "shard": 2,
        "replicate": 30,
        "pp": 210,
    }


def test_compute_is_flops_over_rate() -> None:
    one = make()
    parts = step.micro_batch(one, MACHINE)
    forward = sum(step.forward(one).values())
    assert parts["compute"] + parts["attention"] == pytest.approx(3 * forward * 2048 / 100e12)
    full = step.micro_batch(make(recompute="full"), MACHINE)
    head = step.forward(one)["head"]
    assert full["compute"] + full["attention"] == pytest.approx((4 * forward - head) * 2048 / 100e12)
    halved = step.micro_batch(make(tp=2), MACHINE)
    assert halved["compute"] == pytest.approx(parts["compute"] / 2)


def test_tensor_parallelism_is_four_all_reduces_a_layer() -> None:
    size = 2048 * 1024 * 2
    ring = 2 * size * 3 / 4 / 100e9
    assert step.tensor_parallel(make(tp=4), MACHINE) == pytest.approx(4 * 8 * ring)
    assert step.tensor_parallel(make(tp=4, recompute="full"), MACHINE) == pytest.approx(6 * 8 * ring)
    assert step.tensor_parallel(make(), MACHINE) == 0


@given(st.sampled_from([2, 4, 8]), st.integers(1, 32))
def test_the_bubble_is_stages_less_one_over_micro_batches(pp: int, micro_batches: int) -> None:
    one = make(pp=pp, step_tokens=2048 * micro_batches)
    parts = step.seconds(one, MACHINE)
    busy = sum(parts[name] for name in ("compute", "attention", "elementwise", "launch", "tp"))
    assert one.micro_batches == micro_batches
    assert parts["bubble"] == pytest.approx(busy * (pp - 1) / micro_batches)


def test_sharded_data_parallelism_gathers_twice_and_scatters_once_a_micro_batch() -> None:
    one = make(dp_shard=8, step_tokens=2048 * 8 * 3)
    size = count(BASE).total
    wire = size * 7 / 8 / 100e9
    assert step.data_parallel(one, MACHINE, hidden=0) == pytest.approx(3 * wire * (2 * 2 + 4))
    first = wire * (2 * 2 + 4) / BASE.layers  # with all else hidden, the first layer still waits
    assert step.data_parallel(one, MACHINE, hidden=1e9) == pytest.approx(first)
    assert step.data_parallel(make(), MACHINE, hidden=0) == 0


def test_replicas_all_reduce_fp32_gradients_once_a_step() -> None:
    one = make(dp_replicate=4, step_tokens=2048 * 4 * 5)
    assert step.data_parallel(one, MACHINE, hidden=0) == pytest.approx(2 * 4 * count(BASE).total * 3 / 4 / 100e9)


def test_adapters_scatter_only_themselves_and_halve_the_backward_pass() -> None:
    params = with_adapters(BASE, LoRA(rank=4))
    tuned = replace(make(dp_shard=8), params=params, adapters=True)
    gathered = params.total * 7 / 8 / 100e9 * 2 * 2
    scattered = params.trainable * 7 / 8 / 100e9 * 4
    assert step.data_parallel(tuned, MACHINE, 0) == pytest.approx(tuned.micro_batches * (gathered + scattered))
    whole, light = (step.micro_batch(job, MACHINE)["compute"] for job in (make(dp_shard=8), tuned))
    assert light == pytest.approx(whole * 2 / 3)


def test_experts_are_sent_for_and_back_in_both_passes() -> None:
    one = make(SPARSE, dp_shard=8, ep=8)
    size = 2048 * 2 * 1024 * 2
    assert step.expert_parallel(one, MACHINE) == pytest.approx(4 * 8 * size * 7 / 8 / 100e9)
    assert step.expert_parallel(make(SPARSE, dp_shard=8), MACHINE) == 0


def test_expert_parallelism_spares_gathering_the_experts() -> None:
    together, apart = (step.data_parallel(make(SPARSE, dp_shard=8, ep=ep), MACHINE, 0) for ep in (1, 8))
    experts = count(SPARSE).parts["experts"]
    micro_batches = make(SPARSE, dp_shard=8).micro_batches
    assert together - apart == pytest.approx(micro_batches * experts * 7 / 8 / 100e9 * 8)


def test_context_parallelism_gathers_keys_and_values() -> None:
    one = make(cp=4)
    size = 2 * 2048 * 8 * 64 * 2
    assert step.context_parallel(one, MACHINE) == pytest.approx(3 * 8 * size * 3 / 4 / 100e9)


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


def test_compiled_steps_move_fewer_bytes() -> None:
    assert step.traffic(make(fused=True), MACHINE) < step.traffic(make(), MACHINE)
    assert step.traffic(make(recompute="selective"), MACHINE) > step.traffic(make(), MACHINE)


def test_fp8_speeds_up_matmuls_and_not_attention() -> None:
    h100 = Machine(Cluster(accelerator="h100-sxm"), GPU)
    bf16, fp8 = (step.micro_batch(make(precision=precision), h100) for precision in ("bf16", "fp8"))
    card = catalog.accelerators["h100-sxm"]
    assert fp8["compute"] == pytest.approx(bf16["compute"] * card.measured_tflops["bf16"] / card.measured_tflops["fp8"])
    assert fp8["attention"] == bf16["attention"]


def test_an_unknown_rate_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(LabError, match=r"precision='fp8': no rate is known for x \(known: bf16\)"):
        step.seconds(make(precision="fp8"), MACHINE)
