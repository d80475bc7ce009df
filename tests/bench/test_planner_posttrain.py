"""Post-training rows: copied ones with their tolerance, what contradicts itself, and what cannot be planned."""

from __future__ import annotations

import pytest

from bench.planner import posttrain
from bench.planner.rows import Row, Unplannable

NEMO: Row = {
    "id": "P017", "name": "NeMo-RL GRPO Qwen3-30B3A On policy 16xGB200", "stage": "grpo", "model": "qwen3-30b-a3b", "method": "full",
    "params_total": "30531911680", "params_active": "3352821760", "gpu": "GB200-186GB", "n_gpus": "16", "max_seq": "4096",
    "step_time_s": "221", "prompts_per_step": "2048", "mean_seq_len": "3199", "tok_s_gpu": "1910", "note": "bf16",
    "layout": "gen [TP,PP]=[1,1] train [TP,CP,EP,PP,VPP]=[1,1,16,1,n/a] On policy", "source": "github:NVIDIA-NeMo/RL:docs/about/performance-summary.md",
}  # fmt: skip
PEFT: Row = {
    "id": "P075", "name": "PEFT bench lora/llama-3.2-3B-rank32", "stage": "sft", "model": "llama-3.2-3b", "method": "lora",
    "gpu": "L40S-48GB", "n_gpus": "1", "train_tokens": "4198051", "samples": "20000", "max_seq": "768", "step_time_s": "0.1884",
    "peak_gib": "20.76", "note": "9175040 trainable params", "source": "github:huggingface/peft:method_comparison/MetaMathQA",
}  # fmt: skip


def only(row: Row, kind: str) -> posttrain.Scored:
    found = [one for one in posttrain.score([row]) if one.kind == kind]
    assert len(found) == 1
    return found[0]


def test_published_rows_are_within_their_tolerance() -> None:
    assert only(NEMO, "time:step").predicted == pytest.approx(221, rel=0.3)
    assert only(PEFT, "time:step").predicted == pytest.approx(0.1884, rel=0.2)
    memory = only(PEFT, "memory")
    assert memory.predicted == pytest.approx(20.76, rel=0.15) and memory.fits


def test_rows_that_contradict_themselves_are_flagged_and_still_scored() -> None:
    swe = {**NEMO, "mean_seq_len": "31599", "max_seq": "131072"}
    assert "inconsistent" in only(swe, "time:step").note
    claim = {"id": "x", "name": "logits", "stage": "datagen", "model": "llama-3-70b", "params_total": "70552387584",
             "params_active": "70552387584", "method": "full", "gpu": "H100-SXM-80GB", "gpu_hours": "86000", "train_tokens": "9e12"}  # fmt: skip
    assert "impossible" in only(claim, "time:hours").note
    assert not posttrain.anomaly(NEMO) and not posttrain.anomaly(PEFT)


def test_minimum_resources_are_verdicts() -> None:
    row = {"id": "v", "name": "verl MIN resources grpo-lora", "stage": "grpo", "model": "qwen2.5-72b", "method": "lora",
           "gpu": "H100-SXM-80GB", "n_gpus": "8", "params_total": "72704065536"}  # fmt: skip
    assert only(row, "memory:fits").fits
    assert only({**row, "n_gpus": "1"}, "memory:fits").fits is False


def test_a_row_of_which_nobody_knows_how_much_was_done_is_unplannable() -> None:
    row = {
        "id": "u",
        "name": "run",
        "stage": "sft",
        "model": "qwen3-8b",
        "method": "full",
        "gpu": "A100-SXM-80GB",
        "gpu_hours": "240",
    }
    with pytest.raises(Unplannable, match="neither tokens"):
        list(posttrain.score([row]))
