"""What published throughput rows leave unsaid: each framework's kernels and overlap, its network, what was assumed."""

from __future__ import annotations

import re
from typing import NamedTuple

from bench.planner.table import Row
from lablib.plan.engines import LAB, MEGATRON, MEGATRON_DEEPSPEED, NANOTRON, Engine

GRAPHED = MEGATRON.replace(name="megatron-graphs", layer_seconds=0.0, moe_seconds=0.0, ep_overlap=0.95)
"""Megatron with the whole step as one CUDA graph, fused expert MLPs and the all-to-all behind the other half batch."""
EARLY = MEGATRON.replace(name="megatron-2021", attention="math", overlap=0.0, tp_overlap=0.0, pp_overlap=0.0)
"""Megatron-LM before FlashAttention: fused softmax and bias-GELU, gradients all-reduced after the backward pass."""
ENGINES: dict[str, Engine] = {
    "core": MEGATRON,
    "graphed": GRAPHED,
    "early": EARLY,
    "pipes": MEGATRON_DEEPSPEED.replace(grads=4),
    "toy": MEGATRON.replace(name="megatron-ci", layer_seconds=5.9e-3, moe_seconds=2.4e-3, overlap=0.0),
    "foundry": LAB.replace(name="llm-foundry", attention="fa1"),
    "titan": LAB.replace(name="torchtitan", quantised_gather=True),
    "compiled": LAB.replace(name="compiled", fused=True),
    "nanotron": NANOTRON.replace(fused=True, grads=4),
    "prime": LAB.replace(name="prime-rl", moe_seconds=0.0275),
    "deepspeed": EARLY.replace(name="deepspeed", overlap=0.9, one_card=True),
    "plain": LAB,
}
"""Engines by key. Which features each has is read from its documentation of the time. Of the numbers, the host's times
(Megatron's CI runs deterministic kernels on small models; prime-rl's experts run in a loop) and how much Megatron hides
are fitted; nanotron's kernels are fused whatever its memory."""
FRAMEWORKS = (
    (r"megatron.?bridge|nemo", "core"), (r"ci golden", "toy"), (r"megatron-ds|megatron-deepspeed", "pipes"), (r"megatron-lm 202[0-2]", "early"),
    (r"megatron", "core"), (r"foundry|composer|mosaic", "foundry"), (r"titan", "titan"), (r"fms|lit-gpt|olmo", "compiled"),
    (r"nanotron", "nanotron"), (r"prime", "prime"), (r"deepspeed|sagemaker|zero", "deepspeed"), (r"meta internal", "core"),
    (r"xformers|fairscale", "compiled"),
)  # fmt: skip
"""The first pattern found in a row's framework decides its engine; the lab's own where none is."""


class Usual(NamedTuple):
    """What a source does not say in its columns."""

    recompute: str = "none"
    """Where `act_ckpt` is empty."""
    gbit_s: float | None = None
    """Network of one accelerator, where it is not the accelerator's own."""
    reduce: str = "fp32"
    """Precision of summed gradients."""
    sequence_parallel: bool = True
    vocab: int = 50304
    seq_len: int = 2048
    micro_batch: int = 0
    """0: the fastest of 1, 2, 4 and 8 that divides a rank's share, as tuned runs have it."""


USUAL: dict[str, Usual] = {
    "megatron-bridge": Usual(reduce="bf16"),
    "nemo": Usual(reduce="bf16"),
    "megatron-lm-llama": Usual(reduce="bf16"),
    "megatron-lm-2024": Usual(reduce="bf16"),
    "megatron-golden": Usual(reduce="fp32", seq_len=1024),
    "megatron-lm-2021": Usual("full", sequence_parallel=False),
    "korthikanti": Usual("full", sequence_parallel=False),
    "mt-nlg": Usual("full", sequence_parallel=False),
    "bloom-prequel": Usual("full", gbit_s=50.0, sequence_parallel=False),
    "zero3-2021": Usual("full", reduce="bf16", sequence_parallel=False),
    "fms-fsdp": Usual(reduce="bf16"),
    "llama3-paper": Usual(reduce="fp32", micro_batch=1),
    "mpt": Usual(reduce="fp32"),
    "torchtune": Usual(seq_len=2048, micro_batch=2),
    "misc": Usual(reduce="bf16", sequence_parallel=False),
}
ASSUMED: dict[str, str] = {
    "mpt": "FSDP1 without prefetch limits, Triton FlashAttention-1, eager kernels; fp32 gradient sums unless PURE",
    "megatron-bridge": "empty act_ckpt is no recomputation; bf16 gradient sums; GB200 and GB300 racks of 72 on one NVLink; "
    "from container 26.06 on MXFP8 mixtures of experts run as one CUDA graph; precision not stated is fp8; experts balanced",
    "nemo": "empty act_ckpt is no recomputation; bf16 gradient sums; LoRA trains no base weights",
    "megatron-lm-2024": "the fastest micro-batch of 1 to 8; tokens/s from Megatron's FLOPs formula (full attention, logits)",
    "megatron-lm-2021": "the fastest micro-batch of 1 to 8; interleaved schedule; tokens/s from 96·B·s·l·h²(1+s/6h+V/16lh)",
    "megatron-lm-llama": "empty act_ckpt is no recomputation",
    "zero3-2021": "tokens/s from hardware FLOPs with full recomputation",
    "korthikanti": 'unfused attention; "selective" repeats attention alone',
    "bloom-prequel": "Jean Zay: 4 Omni-Path cards of 100 Gbit/s for 8 GPUs; ZeRO-1 without overlap; tokens/s from hardware FLOPs where missing",
    "mt-nlg": "ZeRO-1 without overlap, unfused attention",
    "fms-fsdp": 'compiled FSDP1; "selective" repeats every second layer; network from the note',
    "torchtitan": "compiled where the note or a float8 precision says so and from 2025 on; local batch of a pipeline in micro-batches of one",
    "nanotron": "MFU of 989 TFLOP/s with 6N (head, no embedding) + 12·L·h·s; gradients reduced after the backward pass",
    "prime-rl": "compiled FSDP2 with chunked loss; a full-weights RL trainer writes its bf16 weights each step",
    "torchtune": "SDPA; batch 2; unpacked Alpaca sequences average 130 tokens and pad to the longer of two",
    "peft-bench": "SDPA without compilation; sequences of 210 tokens pad to the longest of four; tokens counted without padding",
    "megatron-golden": "CI toys: 8 heads, vocabulary 50304, deterministic kernels; launches bound them",
    "llama3-paper": "micro-batch 1, 16 a rank; MFU of 989 TFLOP/s with 6N + 12·L·h·s",
    "misc": "no recomputation unless stated; A100-40GB nodes of SageMaker have 400 Gbit/s",
}
"""In words, by source: printed beside the errors."""


def engine_of(row: Row) -> Engine:
    """The framework's engine with what the row's columns and note say of it."""
    framework, note = row.get("framework", "").lower(), row.get("note", "").lower()
    key = next((engine for pattern, engine in FRAMEWORKS if re.search(pattern, framework)), "plain")
    if key == "core" and graphed(row):
        key = "graphed"
    if key == "toy" and int(float(row.get("hidden") or 0)) >= 4096:
        key = "core"
    engine = ENGINES[key]
    if "fa3" in note:
        engine = engine.replace(attention="fa3")
    if "async" in note and "tp" in note:
        engine = engine.replace(name="torchtitan-async", tp_overlap=0.6)
    return engine


def graphed(row: Row) -> bool:
    """Whether a Megatron-Bridge container captures whole steps: its recipes do from 26.06 on for MXFP8 and NVFP4
    mixtures of experts (scripts/performance/configs, `cuda_graph_impl="full_iteration"`)."""
    found = re.search(r"bridge (\d+)\.(\d+)", row.get("framework", "").lower())
    if not found or not row.get("n_experts"):
        return False
    recent = (int(found.group(1)), int(found.group(2))) >= (26, 6)
    return recent and row.get("precision", "") in ("mxfp8", "nvfp4")


def compiled(row: Row) -> bool:
    """Whether elementwise kernels are fused by a compiler."""
    text = f"{row.get('note', '')} {row.get('precision', '')} {row.get('source', '')}".lower()
    if "eager" in text:
        return False
    framework = row.get("framework", "").lower()
    if "titan" in framework:
        # The asyncTP report and the recipes since compile; the A100 tables of 2024 do not.
        return (
            any(word in text for word in ("compile", "fp8", "float8", "asynctp", "nvfp4", "llama3_h100"))
            or "h100" in row.get("gpu", "").lower()
        )
    if "torchtune" in framework:
        # Its table adds one change a row: whatever follows "+compile" is compiled too.
        note = row.get("note", "").lower().strip()
        return bool(row.get("micro_batch")) and (note.startswith("+") or "lora" in note)
    return "prime" in framework


def gbit_s(row: Row, usual: Usual) -> float | None:
    """Network of one accelerator in Gbit/s: the note's figure a node, else the source's own."""
    found = re.search(r"(\d+)\s*gbps/node", row.get("note", "").lower())
    if found:
        return float(found.group(1)) / 8
    if "sagemaker" in row.get("framework", "").lower():
        return 50.0
    return usual.gbit_s
