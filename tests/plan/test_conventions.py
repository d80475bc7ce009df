"""Published TFLOP/s and MFU against the tokens/s that the same source printed beside them, and impossible claims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import budget_table, conventions, flops
from lablib.plan.conventions import CONVENTIONS, USED_BY
from lablib.specs import LabError, catalog

A100, H100, GB200 = 312e12, 989e12, 2500e12

TFLOPS = [
    # group, model, sequence, tokens/s/GPU, TFLOP/s/GPU; each source prints both
    ("mpt", "mpt-70b", 2048, 1007.0, 408.0),  # mosaicml/llm-foundry scripts/train/benchmarking, H100
    ("nemo", "gpt3-175b", 2048, 716.0, 771.0),  # NeMo 24.07 performance summary, FP8 H100
    ("nemo", "llama-3-8b", 8192, 12273.0, 711.0),
    ("megatron-lm-llama", "llama-3-8b", 8192, 13812.0, 800.0),  # Megatron-LM examples/llama, FP8 H100
]

MFU = [
    # group, model, sequence, tokens/s/GPU, MFU, peak
    ("torchtitan", "llama-3-8b", 8192, 2904.0, 0.568, A100),  # pytorch/torchtitan docs/performance.md
    ("torchtitan", "llama-3-70b", 8192, 331.0, 0.517, A100),
    ("torchtitan", "llama-2-13b", 4096, 2162.0, 0.611, A100),
    ("fms-fsdp", "llama-2-7b", 4096, 4550.0, 0.68, A100),  # foundation-model-stack/fms-fsdp README
]


@pytest.mark.parametrize(("group", "model", "seq", "tokens", "published"), TFLOPS)
def test_published_tflops_are_the_tokens_beside_them(
    group: str, model: str, seq: int, tokens: float, published: float
) -> None:
    found = conventions.tokens_per_second(published, catalog.models[model], seq, USED_BY[group])
    assert found == pytest.approx(tokens, rel=0.01)


@pytest.mark.parametrize(("group", "model", "seq", "tokens", "published", "peak"), MFU)
def test_published_mfu_is_the_tokens_beside_it(
    group: str, model: str, seq: int, tokens: float, published: float, peak: float
) -> None:
    spec = catalog.models[model]
    found = conventions.tokens_from_mfu(published, spec, seq, USED_BY[group], peak)
    assert found == pytest.approx(tokens, rel=0.01)
    assert conventions.mfu(tokens, spec, seq, USED_BY[group], peak) == pytest.approx(published, rel=0.01)
    wrong = conventions.tokens_from_mfu(published, spec, seq, "6n", peak)
    assert wrong > 1.1 * tokens or model.startswith("llama-2") or model == "llama-3-70b"


def test_palms_own_figures() -> None:
    # arXiv 2204.02311 App. B: PaLM 540B at 238.3K tokens/s on 6144 TPU v4 is 46.2 % MFU with attention, 45.7 % without.
    palm, rate = catalog.models["palm-540b"], 238.3e3 / 6144
    assert conventions.mfu(rate, palm, 2048, "palm", 275e12) == pytest.approx(0.462, abs=0.001)
    assert conventions.mfu(rate, palm, 2048, "6n", 275e12) == pytest.approx(0.457, abs=0.001)


@pytest.mark.parametrize("name", ["megatron21-1.7b", "megatron21-145.6b", "megatron21-1008b"])
def test_hardware_flops_are_narayanans_closed_form(name: str) -> None:
    m, s = catalog.models[name], 2048
    paper = 96 * m.layers * m.hidden**2 * (1 + s / (6 * m.hidden) + m.vocab / (16 * m.layers * m.hidden))
    assert conventions.per_token(m, s, "hardware", "full") == pytest.approx(paper, rel=1e-12)
    kept = 72 * m.layers * m.hidden**2 * (1 + s / (6 * m.hidden) + m.vocab / (12 * m.layers * m.hidden))
    assert (
        conventions.per_token(m, s, "hardware") == conventions.per_token(m, s, "full") == pytest.approx(kept, rel=1e-12)
    )


def test_megatrons_trillion_parameters_take_the_published_days() -> None:
    # arXiv 2104.04473 §5.1: 163 TFLOP/s a GPU of hardware FLOPs on 3072 A100; 450B tokens in about 84 days.
    rate = conventions.tokens_per_second(163, catalog.models["megatron21-1008b"], 2048, "hardware", "full")
    assert 450e9 / (rate * 3072) / 86400 == pytest.approx(84, rel=0.02)


def test_one_row_in_every_convention_is_ordered() -> None:
    model = catalog.models["qwen3-30b-a3b"]
    counted = {name: conventions.per_token(model, 8192, name, "full") for name in CONVENTIONS}
    assert counted["6n"] > 5 * counted["6n-active"]
    assert counted["6n-active"] < counted["causal"] < counted["full"] < counted["hardware"]
    llama = catalog.models["llama-3-8b"]
    ratio = {name: conventions.converted(1.0, llama, 8192, "6n", name) for name in CONVENTIONS}
    assert ratio["palm"] == pytest.approx(1.27, abs=0.005)
    assert ratio["full"] == pytest.approx(1.20, abs=0.005)
    assert ratio["causal"] == pytest.approx(1.07, abs=0.005)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(catalog.models)), st.sampled_from(sorted(CONVENTIONS)), st.sampled_from(sorted(CONVENTIONS)),
    st.integers(1, 10**6), st.floats(1, 2000), st.sampled_from(["none", "selective-op", "full"]),
)  # fmt: skip
def test_every_convention_returns_to_the_tokens(
    name: str, one: str, other: str, seq: int, rate: float, policy: str
) -> None:
    model = catalog.models[name]
    tokens = conventions.tokens_per_second(rate, model, seq, one, policy)
    assert conventions.tflops(tokens, model, seq, one, policy) == pytest.approx(rate)
    there = conventions.converted(rate, model, seq, one, other, policy)
    assert conventions.tokens_per_second(there, model, seq, other, policy) == pytest.approx(tokens)
    assert conventions.converted(there, model, seq, other, one, policy) == pytest.approx(rate)


def test_rows_of_a_table_convert_at_once() -> None:
    model, rates, lengths = catalog.models["gemma-3-4b"], np.array([100.0, 200.0]), np.array([512, 65536])
    for name in CONVENTIONS:
        both = conventions.tokens_per_second(rates, model, lengths, name)
        for i in range(2):
            assert both[i] == pytest.approx(conventions.tokens_per_second(rates[i], model, int(lengths[i]), name))


def test_full_attention_stays_inside_the_window() -> None:
    model, seq = catalog.models["gemma-3-4b"], 8192  # 34 layers, every sixth global, windows of 1,024
    scores = 4 * model.heads * model.head_dim * (5 * seq + 29 * 1024)
    weights = conventions.per_token(model, seq, "full") - 3 * scores
    assert weights == pytest.approx(3 * sum(flops.matmuls(model).values()), rel=1e-12)


def test_an_unknown_convention_names_the_known() -> None:
    with pytest.raises(LabError, match="must be one of 6n, 6n-active, palm"):
        conventions.per_token(catalog.models["gpt2"], 1024, "7n")


def test_a_claim_over_the_peak_is_named() -> None:
    # open-instruct scripts/slurm/sft/README: 22B tokens, 2 epochs, a 7B, 24 hours on 8 H100
    said = conventions.impossible(catalog.models["olmo-2-7b"], 2 * 22e9, 8 * 24, H100)
    assert said is not None and said.startswith("impossible: 282% of the peak")
    # OLMo 2 7B's own pre-training: 4.05T tokens at 16 % of this rate is possible
    assert conventions.impossible(catalog.models["olmo-2-7b"], 2 * 22e9, 8 * 24 * 6, H100) is None


def test_mfu_outside_the_healthy_band_is_flagged() -> None:
    assert conventions.verdict(0.45) is None
    for share, word in ((0.2, "low"), (0.7, "unusually high"), (1.4, "impossible: 140%")):
        said = conventions.verdict(share)
        assert said is not None and said.startswith(word)


def test_the_budget_table_is_the_guides_rule() -> None:
    table = {(row.parameters, row.diet): row for row in budget_table.budgets()}
    seven = budget_table.budgets(sizes=(7e9,))[0]
    assert (seven.tokens, seven.flops) == (1.4e11, pytest.approx(5.88e21))
    eight = table[8e9, "15T"]
    assert eight.tokens_per_parameter == pytest.approx(1875)  # the guide's "about 1,900"
    assert eight.flops == pytest.approx(7.2e23)
    assert eight.gpu_days_low * 86400 * H100 * 0.55 == pytest.approx(eight.flops)
    assert eight.gpu_days_high / eight.gpu_days_low == pytest.approx(0.55 / 0.35)
    with pytest.raises(LabError, match="no published fp8 peak"):
        budget_table.budgets("a100-sxm", precision="fp8")
