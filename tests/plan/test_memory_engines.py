"""Memory under other conventions: ZeRO stages, Megatron's bytes, schedules, losses, offload; and grids against plain plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import activations, memory
from lablib.plan.efficiency import GPU
from lablib.plan.engines import BF16, LAB, MEGATRON, MEGATRON_DEEPSPEED, Engine
from lablib.plan.grid import Layouts
from lablib.plan.job import Job
from lablib.plan.params import count
from lablib.specs import ModelSpec, Parallelism, catalog

BASE = ModelSpec(layers=8, hidden=1024, heads=16, kv_heads=4, ffn=2816, vocab=32000)
FIELDS = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "micro_batch_size", "virtual_stages")


def make(model: ModelSpec = BASE, engine: Engine = LAB, **changes: object) -> Job:
    layout = {name: changes.pop(name) for name in list(changes) if name in Parallelism.model_fields}
    job = Job(model, count(model), Parallelism(**layout), 2048, 2**20, engine=engine)
    return replace(job, **changes)


def each(job: Job) -> float:
    """Bytes of states for each parameter of the rank's stage."""
    return sum(memory.states(job).values()) / count(job.model).total


@pytest.mark.parametrize("ranks", [1, 4, 64])
def test_zero_shards_what_its_paper_says(ranks: int) -> None:
    # arXiv 1910.02054 figure 1: 2 + 2 + 12 bytes in mixed precision; stage 1 shards 12, stage 2 also 2, stage 3 all 16
    mixed = Engine(weights=2, grads=2, master=4)
    for zero, expected in ((1, 4 + 12 / ranks), (2, 2 + 14 / ranks), (3, 16 / ranks)):
        assert each(make(engine=mixed, dp_shard=ranks, zero=zero)) == pytest.approx(expected)


def test_megatrons_bytes_a_parameter() -> None:
    # its distributed optimizer's table: 18 without, 6 + 12/d with (bf16 weights, fp32 gradients)
    assert each(make(engine=MEGATRON, dp_replicate=8)) == 18
    assert each(make(engine=MEGATRON, dp_shard=8, zero=1)) == 6 + 12 / 8


@pytest.mark.parametrize(("optimizer", "bytes_each"), [("adamw", 8), ("adamw-bf16", 4), ("sgd", 4), ("muon", 4)])
def test_optimiser_states(optimizer: str, bytes_each: float) -> None:
    assert memory.states(make(optimizer=optimizer))["optimizer"] == bytes_each * count(BASE).total


def test_interleaving_costs_korthikantis_factor() -> None:
    # arXiv 2205.05198 §4.2.3: the first stage holds 1 + (p - 1) / (p·m) times the layers' activations
    plain, sliced = make(pp=4), make(pp=4, virtual_stages=2)
    assert memory.kept(sliced) / memory.kept(plain) == pytest.approx(1 + 3 / (4 * 2))
    assert memory.kept(make(pp=4, pp_schedule="gpipe")) == memory.kept(plain) / 4 * make(pp=4).micro_batches


def test_middle_stages_hold_what_is_left_of_the_pipeline() -> None:
    table = memory.profile(make(pp=4, recompute="full"), GPU)
    begin = [table[rank, "start of backward"]["activations"] for rank in range(4)]
    steps = np.diff(begin[:3])
    assert steps[0] < 0 and steps[0] == pytest.approx(steps[1])  # a micro-batch less each


def test_sequence_parallelism_leaves_korthikantis_34_over_t() -> None:
    # arXiv 2205.05198 equation 4: s·b·h·34/t bytes a GPT layer without scores; ours without its dropout masks is 32
    model = ModelSpec(family="gpt2", layers=1, hidden=1024, heads=16, ffn=4096, vocab=100)
    style = activations.Style(2, 2, True)
    per_token = activations.attention(model, style).each(8, True) + activations.dense(model, style).each(8, True)
    assert per_token * 8 / 1024 == pytest.approx(32 + 4 * 16 / 1024)  # the last: one fp32 a head of fused attention
    masked = style._replace(dropout=True)
    wide = activations.attention(model, masked).wide + activations.dense(model, masked).wide
    assert wide * 1 == pytest.approx((8 + 2) * 1024)


def test_selective_policies_lie_between_none_and_full() -> None:
    kept = {policy: memory.kept(make(recompute=policy, dp_shard=2)) for policy in ("full", "selective-op", "selective-layer", "selective", "none")}  # fmt: skip
    assert kept["full"] < kept["selective-op"] < kept["selective"] < kept["none"]
    assert kept["selective-layer"] == pytest.approx((kept["full"] + kept["none"]) / 2)


def test_a_chunked_loss_does_not_grow_with_the_batch() -> None:
    one, eight = (memory.logits(make(micro_batch_size=n, cross_entropy="chunked")) for n in (1, 8))
    assert one == pytest.approx(eight)
    fused = memory.logits(make(micro_batch_size=8, cross_entropy="fused"))
    assert eight < fused < memory.logits(make(micro_batch_size=8))


def test_offloading_moves_bytes_to_the_host_and_loses_none() -> None:
    full = memory.states(make())
    moved = make(offload="optimizer")
    assert memory.states(moved)["optimizer"] == 0 and memory.host(moved) == full["optimizer"]
    everything = make(offload="all", recompute="full")
    assert sum(memory.states(everything).values()) == 0
    assert memory.host(everything) == sum(full.values()) + memory.kept(make(recompute="full"))


layouts = st.tuples(*(st.sampled_from((1, 2, 4)) for _ in FIELDS))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(layouts, min_size=2, max_size=6),
    st.sampled_from(("none", "selective", "selective-op", "full")),
    st.sampled_from(("full", "chunked")),
    st.sampled_from((LAB, MEGATRON, BF16)),
)
def test_a_grid_is_its_layouts_one_by_one(
    rows: list[tuple[int, ...]], recompute: str, loss: str, engine: Engine
) -> None:
    changes = {"recompute": recompute, "cross_entropy": loss, "precision": "fp32", "engine": engine}
    columns = np.array(rows).T
    grid = replace(make(**changes), layout=Layouts(**dict(zip(FIELDS, columns, strict=True))))
    plain = [memory.peak(make(**changes, **dict(zip(FIELDS, row, strict=True))), GPU, 80).peak_gib for row in rows]
    assert np.asarray(memory.peak_bytes(grid, GPU)) / memory.GIB == pytest.approx(plain)


PUBLISHED = (
    # model, engine, layout and batch, published GiB, source
    ("llama-3-8b", {"engine": LAB.replace(loss_bytes=14), "dp_shard": 8, "micro_batch_size": 2, "recompute": "selective-op", "fused": True},
     8192, 77.0, "torchtitan benchmarks/llama3_h100_202412: 8 H100, compile"),
    ("llama-3-8b", {"engine": LAB.replace(loss_bytes=14), "dp_shard": 128, "micro_batch_size": 2, "recompute": "selective-op", "fused": True},
     8192, 62.0, "torchtitan benchmarks/llama3_h100_202412: 128 H100, compile"),
    ("llama-3-8b", {"engine": LAB.replace(loss_bytes=14), "dp_shard": 2, "cp": 4, "recompute": "full", "fused": True},
     131_072, 84.0, "torchtitan benchmarks/llama3_h100_202412: CP 4"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "setting", "seq_len", "gib", "source"), PUBLISHED)
def test_published_peaks_within_a_tenth(
    name: str, setting: dict[str, object], seq_len: int, gib: float, source: str
) -> None:
    model = catalog.models[name]
    job = make(model.replace(max_seq_len=10**6), **setting)
    job = replace(job, seq_len=seq_len, step_tokens=seq_len * job.layout.dp * job.layout.micro_batch_size)
    planned = memory.peak(job, GPU.replace(reserve_gib=0.5, fragmentation=0.06), 95).peak_gib
    assert planned == pytest.approx(gib, rel=0.1), source


def test_the_bloom_chronicles_first_row() -> None:
    # bigscience's chronicles, 2022-02-17: 8 layers of 14,400 on TP 8 without sharding took 62.4 GiB; sharded by ZeRO-1
    # over two ranks the same stage of a deeper model 47.5 GiB
    model = ModelSpec(
        family="gpt2",
        layers=8,
        hidden=14400,
        heads=96,
        ffn=57600,
        vocab=250880,
        tied_embeddings=True,
        positions="alibi",
    )
    made = replace(make(model, MEGATRON_DEEPSPEED, tp=8, zero=1, recompute="full"), step_tokens=2048 * 2048)
    device = GPU.replace(reserve_gib=6, fragmentation=0)
    assert memory.peak(made, device, 80).peak_gib == pytest.approx(62.4, rel=0.1)
