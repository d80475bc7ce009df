"""Peers on the same rows: textbook formulas and installed packages run live, others are quoted with their date.

A peer that is not installed is said to be missing. ``pip install .[bench]`` brings DeepSpeed; llm-analysis pins
transformers below 5, so it goes in beside ours without its dependencies (`LLM_ANALYSIS`).
"""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from bench.planner.fields import Field
from bench.planner.rows import Row, Scored, Unplannable, accelerator_of, model_of, real, whole
from bench.planner.scores import by_source, errors, measured
from lablib.plan.params import count
from lablib.specs import Accelerator, ModelSpec

GIB = 2**30
LLM_ANALYSIS = "pip install --no-deps llm-analysis==0.2.2 fire==0.5.0 termcolor"
_TASKS = ("pretrain", "full", "sft-full", "rl-trainer-full", "")
"""Full training: no peer says anything of adapters."""
_PEAKS = (("fp4", "fp4"), ("fp8", "fp8"), ("float8", "fp8"))


class Setup(NamedTuple):
    """A row's layout, as every peer asks for it."""

    model: ModelSpec
    gpu: Accelerator
    peak: float
    """Data-sheet FLOP/s of the row's precision."""
    tp: int
    pp: int
    cp: int
    ep: int
    dp: int
    micro: int
    seq: int
    zero: int
    recompute: str
    """"full", "selective" or "none"."""
    micro_batches: int


class Peer(NamedTuple):
    """A predictor of one field. `predict` returns None (or raises) for a row that it cannot say."""

    field: str
    name: str
    predict: Callable[[Row], float | None]
    package: str = ""
    """The distribution it comes from; "" is arithmetic of this file."""
    install: str = ""


def setup(row: Row) -> Setup:
    """The row as peers see it. Raises `Unplannable`."""
    if row.get("task", "") not in _TASKS:
        raise Unplannable("peers know full training only")
    gpu, kind = accelerator_of(row["gpu"]), row.get("precision", "")
    tp, pp, cp = (max(1, whole(row, name)) for name in ("tp", "pp", "cp"))
    dp = whole(row, "dp", 0) or max(1, whole(row, "n_gpus") // (tp * pp * cp))
    micro = max(1, whole(row, "micro_batch"))
    stage = row.get("zero_stage", "")
    act = row.get("act_ckpt", "")
    peak = gpu.peak(next((key for word, key in _PEAKS if word in kind), "bf16")) or gpu.peak("bf16") or 0.0
    return Setup(
        model_of(row), gpu, peak, tp, pp, cp, max(1, whole(row, "ep")), dp, micro, whole(row, "seq_len", 2048),
        3 if stage in ("3", "fsdp3", "hsdp") else int(stage) if stage in ("1", "2") else 0,
        "full" if act.startswith("full") else "selective" if act.startswith("selective") else "none",
        max(1, round(whole(row, "global_batch", micro * dp) / (micro * dp))),
    )  # fmt: skip


def textbook(row: Row) -> float:
    """GiB by ZeRO's table of states (arXiv 1910.02054 figure 1: 2 + 2 + 12 bytes) and the activations of Korthikanti et al.
    (arXiv 2205.05198 equations 4 to 6, attention not kept, the first stage's in-flight micro-batches, logits in fp32)."""
    s = setup(row)
    n = count(s.model).total / (s.tp * s.pp)
    ranks = s.dp * s.cp
    divisors = [ranks if s.zero >= stage else 1 for stage in (3, 2, 1)]
    states = n * (2 / divisors[0] + 2 / divisors[1] + 12 / divisors[2])
    tokens, hidden = s.seq / s.cp * s.micro, s.model.hidden
    per_layer = tokens * hidden * (2 if s.recompute == "full" else 34 / s.tp)
    layers = s.model.layers / s.pp * min(s.pp, s.micro_batches)
    logits = 4 * tokens * s.model.vocab / s.tp if s.pp == 1 else 0.0
    return (states + layers * per_layer + logits) / GIB


def forty_percent(row: Row, attention: bool = False) -> float | None:
    """Tokens/s/GPU at 40 % of the data-sheet peak with 6 FLOPs an active parameter (arXiv 2001.08361 equation 2.2), and with
    `attention` 6 L h s for causal attention."""
    s = setup(row)
    flops = 6 * count(s.model).active + (6 * s.model.layers * s.model.hidden * s.seq if attention else 0)
    return 0.4 * s.peak / flops if s.peak else None


def constant_mfu(share: float) -> Callable[[Row], float | None]:
    """GPU-hours of 6ND at a constant share of the bf16 peak."""

    def hours(row: Row) -> float | None:
        active, tokens = real(row, "params_active") or real(row, "params_total"), real(row, "tokens")
        peak = accelerator_of(row["gpu"]).peak("bf16")
        return 6 * active * tokens / (share * peak) / 3600 if active and tokens and peak else None

    return hours


@lru_cache(maxsize=1)
def _llm_analysis() -> Any:
    """The package's `analysis` module, without its log."""
    import llm_analysis.analysis as module

    for name in ("llm_analysis", "llm_analysis.logger", module.logger.name):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return module


def _analysed(row: Row, efficiency: float | None) -> tuple[dict[str, Any], Setup]:
    """llm-analysis' summary of a row. It has no gated feed-forward's parameters: 3/2 of the width stands for one."""
    s, lib = setup(row), _llm_analysis()
    from llm_analysis.config import GPUConfig, ModelConfig, ParallelismConfig

    width = s.model.moe.expert_ffn if s.model.moe else s.model.ffn
    width = round(width * 1.5) if s.model.gated else width
    model = ModelConfig(
        name="row", num_layers=s.model.layers, n_head=s.model.heads, hidden_dim=s.model.hidden, vocab_size=s.model.vocab,
        max_seq_len=s.seq, num_key_value_heads=s.model.kv_heads, ffn_embed_dim=width, expansion_ratio=width / s.model.hidden,
        moe_num_experts=s.model.moe.experts if s.model.moe else 1, moe_top_k=s.model.moe.top_k if s.model.moe else 1,
    )  # fmt: skip
    roomy = 1e6  # GB: it refuses what it thinks does not fit, and then says nothing
    gpu = GPUConfig("row", roomy, s.gpu.bandwidth_gb_s, s.gpu.scaleup_gb_s or 64, 8e-6, s.peak / 1e12)
    parallel = ParallelismConfig(tp_size=s.tp, pp_size=s.pp, dp_size=s.dp, ep_size=s.ep)
    analysis = lib.LLMAnalysis(model, gpu, parallelism_config=parallel, flops_efficiency=efficiency or 0.5)
    recompute = {"full": "FULL", "selective": "SELECTIVE", "none": "NONE"}[s.recompute]
    return analysis.training(
        batch_size_per_gpu=s.micro, gradient_accumulation_steps=s.micro_batches, seq_len=s.seq // s.cp, ds_zero=lib.DSZeRO(s.zero),
        activation_recomputation=lib.ActivationRecomputation[recompute], mlp_gated_linear_units=s.model.gated,
    ), s  # fmt: skip


def llm_analysis_memory(row: Row) -> float:
    """GiB by llm-analysis: weights, gradients, optimiser states and activations."""
    made, _ = _analysed(row, None)
    return float(made["(weight+op_state+grad+act)_memory_per_gpu"]) / GIB


def llm_analysis_rate(row: Row) -> float:
    """Tokens/s/GPU by llm-analysis at a FLOP efficiency of 0.5, the value that fits these rows best."""
    made, s = _analysed(row, 0.5)
    return s.micro * (s.seq // s.cp) / float(made["latency_per_micro_batch"]) / (s.tp * s.pp)


@lru_cache(maxsize=1)
def _zero_estimators() -> tuple[Any, Any]:
    logging.disable(logging.INFO)
    try:
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
    finally:
        logging.disable(logging.NOTSET)
    return estimate_zero2_model_states_mem_needs, estimate_zero3_model_states_mem_needs


def deepspeed_states(row: Row) -> float | None:
    """GiB of model states by DeepSpeed's estimators for ZeRO-2 and -3; it knows no other parallelism, nor activations."""
    s = setup(row)
    if s.zero < 2:
        return None
    two, three = _zero_estimators()
    total, nodes = count(s.model).total // (s.tp * s.pp), max(1, s.dp * s.cp // 8)
    each = max(1, s.dp * s.cp // nodes)
    if s.zero == 2:
        return float(two(total, num_gpus_per_node=each, num_nodes=nodes, cpu_offload=False)[1]) / GIB
    largest = max(s.model.vocab * s.model.hidden, (total - s.model.vocab * s.model.hidden) // s.model.layers)
    return float(three(total, largest, each, nodes, cpu_offload=False, cpu_offload_params=False)[1]) / GIB


def accelerate_estimate(row: Row) -> float | None:
    """GiB by ``accelerate estimate-memory``'s arithmetic (the peak of its stages): one GPU, no activations."""
    s = setup(row)
    if s.dp * s.tp * s.pp * s.cp > 1:
        return None
    from accelerate.commands.estimate import estimate_training_usage

    return float(max(estimate_training_usage(4 * count(s.model).total, "bfloat16").values())) / GIB


PEERS = (
    Peer("memory", "textbook (ZeRO states + Korthikanti)", textbook),
    Peer("memory", "llm-analysis", llm_analysis_memory, "llm-analysis", LLM_ANALYSIS),
    Peer("memory", "DeepSpeed ZeRO estimators", deepspeed_states, "deepspeed", "pip install .[bench]"),
    Peer("memory", "accelerate estimate-memory", accelerate_estimate, "accelerate", "pip install .[train]"),
    Peer("throughput", "40 % of peak, 6N", forty_percent),
    Peer("throughput", "40 % of peak, causal FLOPs", lambda row: forty_percent(row, attention=True)),
    Peer("throughput", "llm-analysis, efficiency 0.5", llm_analysis_rate, "llm-analysis", LLM_ANALYSIS),
    Peer("runs", "6ND at MFU 0.30", constant_mfu(0.30)),
    Peer("runs", "6ND at MFU 0.35", constant_mfu(0.35)),
    Peer("runs", "6ND at MFU 0.40", constant_mfu(0.40)),
)


def live(field: Field) -> dict[str, dict[str, Any]]:
    """Each peer's figures on the rows that we planned and it can do, with our median on the same rows (`ours`)."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # packages greet on import, even on stdout
        return {peer.name: _held(peer, field) for peer in PEERS if peer.field == field.name}


def _held(peer: Peer, field: Field) -> dict[str, Any]:
    said = {"status": "computed here"}
    if peer.package:
        found = _version(peer.package)
        if not found or not importlib.util.find_spec(peer.package.replace("-", "_")):
            return {"status": f"not installed ({peer.install})"}
        said = {"status": f"{peer.package} {found}, run here"}
    theirs, ours = _both(peer, measured(field.scored), field.rows)
    return {**said, **errors(theirs), "ours": errors(ours)["median_ape"], "by_source": by_source(theirs)}


def _both(peer: Peer, scored: Sequence[Scored], rows: dict[str, Row]) -> tuple[list[Scored], list[Scored]]:
    """The peer's predictions and ours for the rows that it can do; what it refuses or crashes on, it cannot do."""
    theirs: list[Scored] = []
    ours: list[Scored] = []
    for one in scored:
        try:
            value = peer.predict(rows[one.row])
        except Exception:
            continue
        if value is not None and value > 0:
            theirs.append(one._replace(predicted=value, low=None, high=None, fits=None))
            ours.append(one)
    return theirs, ours


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def quoted(field: str, sources: Sequence[str]) -> list[dict[str, str]]:
    """Published medians of peers that are not run here, for `sources` and over all (quoted.csv: measured on rows of which a
    folder may hold only a part)."""
    text = Path(__file__).with_name("quoted.csv").read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["field"] == field and row["source"] in ("all", *sources)]  # fmt: skip
