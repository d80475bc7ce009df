"""Published throughput rows: FLOPs conventions, what each framework means, and rows with holes."""

from __future__ import annotations

import random

import pytest

from bench.planner.frameworks import USUAL, Usual, compiled, engine_of
from bench.planner.table import Row, Unplannable
from bench.planner.throughput import _layout, _sequence, flops_a_token, planned, precision, scored
from lablib.specs import ModelSpec

GPT = ModelSpec(family="gpt2", layers=96, hidden=12288, heads=96, ffn=49152, vocab=51200, max_seq_len=2048)
MEGATRON: Row = {
    "id": "T1", "group": "korthikanti", "model": "gpt3-175b", "n_layers": "96", "hidden": "12288", "n_heads": "96", "n_kv_heads": "96",
    "ffn": "49152", "vocab": "51200", "params_total": "174600486912", "task": "pretrain", "framework": "Megatron-LM 2022",
    "gpu": "A100-SXM-80GB", "n_gpus": "64", "precision": "fp16", "seq_len": "2048", "micro_batch": "1", "global_batch": "64",
    "tp": "8", "pp": "8", "cp": "1", "ep": "1", "vp": "3", "zero_stage": "0", "act_ckpt": "full", "tok_s_gpu": "112.96",
}  # fmt: skip
"""arXiv 2205.05198 Table 5: 18.13 s a step."""


def test_hardware_flops_are_narayanan_2021s() -> None:
    layers, h, s, v = GPT.layers, GPT.hidden, 2048, GPT.vocab
    published = 96 * layers * h * h * (1 + s / (6 * h) + v / (16 * layers * h))
    assert flops_a_token({}, GPT, s, hardware=True) == pytest.approx(published, rel=2e-3)
    assert flops_a_token({}, GPT, s, hardware=False) == pytest.approx(72 * layers * h * h * (1 + s / (6 * h) + v / (12 * layers * h)), rel=2e-3)  # fmt: skip


def test_a_row_is_planned_near_what_was_measured() -> None:
    one = scored(MEGATRON)
    assert one.predicted == pytest.approx(one.published, rel=0.2)
    assert one.low is not None and one.high is not None and one.low < one.predicted < one.high


@pytest.mark.parametrize(
    ("column", "value"), [("step_time_s", "18.13"), ("hfu_tflops_gpu", f"{112.96 * 96 * 96 * 12288**2 * (1 + 1 / 36 + 51200 / (16 * 96 * 12288)) / 1e12}")]
)  # fmt: skip
def test_tokens_follow_from_a_steps_time_or_from_flops(column: str, value: str) -> None:
    made = planned({**MEGATRON, "tok_s_gpu": "", column: value})
    assert made is not None and made[2] == pytest.approx(112.96, rel=0.01)


def test_a_row_without_a_measurement_is_refused() -> None:
    with pytest.raises(Unplannable, match="no measured throughput"):
        scored({**MEGATRON, "tok_s_gpu": ""})


@pytest.mark.parametrize(
    ("text", "name"),
    [("bf16", "bf16"), ("fp16", "bf16"), ("fp8 rowwise", "fp8"), ("nvfp4(bf16 tail)", "nvfp4"), ("mxfp8", "mxfp8"), ("", "bf16"),
     ("not stated in table", "fp8"), ("fp32", "fp32")],
)  # fmt: skip
def test_precisions_by_any_name(text: str, name: str) -> None:
    assert precision({"precision": text}) == name


def test_frameworks_have_their_kernels() -> None:
    bridge = {"framework": "Megatron-Bridge 26.06", "precision": "mxfp8", "n_experts": "128"}
    assert engine_of(bridge).moe_seconds == 0 < engine_of({**bridge, "framework": "Megatron-Bridge 26.04"}).moe_seconds
    assert engine_of({"framework": "Megatron-LM 2021"}).attention == "math"
    assert engine_of({"framework": "prime-rl trainer FSDP2", "note": "FA3"}).attention == "fa3"
    assert engine_of({"framework": "something new"}).name == "lab"
    assert compiled({"framework": "torchtitan FSDP2", "note": "compile"}) and not compiled({"framework": "torchtitan FSDP2", "note": "eager"})  # fmt: skip


def test_zero_stages_and_padding() -> None:
    assert _layout({**MEGATRON, "zero_stage": "1"}, Usual()).zero == 1
    assert _layout({**MEGATRON, "zero_stage": "0"}, Usual()).dp_replicate == 1
    sharded = _layout({**MEGATRON, "zero_stage": "fsdp3", "tp": "1", "pp": "1"}, Usual())
    assert (sharded.dp_shard, sharded.zero) == (64, 3)
    hybrid = _layout({**MEGATRON, "zero_stage": "hsdp", "tp": "1", "pp": "1"}, Usual())
    assert (hybrid.dp_shard, hybrid.dp_replicate) == (8, 8)
    tokens, useful = _sequence({"seq_len": "<=768 (mean 210)", "micro_batch": "4"}, Usual())
    assert 210 < tokens < 768 and tokens * useful == pytest.approx(210, abs=1)
    assert USUAL["mpt"].reduce == "fp32"


def test_rows_with_holes_are_planned_or_refused_with_a_reason() -> None:
    chance = random.Random(0)
    values = ["", "1", "2", "8", "3.0", "64", "full", "selective_op", "fp8", "H100-SXM-80GB", "GB200-186GB", "hsdp", "sft", "lora", "torchtitan", "<=768 (mean 210)"]  # fmt: skip
    for _ in range(300):
        row = dict(MEGATRON)
        for name in chance.sample(sorted(set(row) - {"id", "tok_s_gpu"}), 3):
            row[name] = chance.choice(values)
        try:
            assert scored(row).predicted > 0
        except Unplannable as reason:
            assert str(reason)
