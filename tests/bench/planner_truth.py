"""A dozen published rows, with their sources, written as a truth folder."""

from __future__ import annotations

import csv
from pathlib import Path

BLOOM = "github:bigscience-workshop/bigscience:train/tr11-176B-ml/chronicles-prequel.md"
TITAN = "github:pytorch/torchtitan:benchmarks/llama3_h100_202412_torchtitan.md"
MPT = "github:mosaicml/llm-foundry:scripts/train/benchmarking/README.md@8c8dd48"
LLAMA_1 = "arXiv 2302.13971 tables 2 and 15"
LLAMA_2 = "github:meta-llama/llama-models:models/llama2/MODEL_CARD.md"

Row = dict[str, str]
_LLAMA_3_8B = {"model": "llama-3-8b", "params_total": 8029995008, "params_active": 8029995008, "n_layers": 32, "hidden": 4096, "n_heads": 32,
                   "n_kv_heads": 8, "ffn": 14336, "vocab": 128256}  # fmt: skip
_MPT_70B = {"model": "mpt-70b", "params_total": 64853901312, "params_active": 64853901312, "n_layers": 80, "hidden": 8192, "n_heads": 64,
                "n_kv_heads": 64, "ffn": 32768, "vocab": 50368}  # fmt: skip
_BLOOM_20B = {"model": "bloom-like-20b", "params_total": 23520729600, "params_active": 23520729600, "n_layers": 8, "hidden": 14400,
                  "n_heads": 96, "n_kv_heads": 96, "ffn": 57600, "vocab": 250880}  # fmt: skip
_BLOOM_181B = {"model": "bloom-like-181b", "params_total": 181180088320, "params_active": 181180088320, "n_layers": 72, "hidden": 14336,
                   "n_heads": 64, "n_kv_heads": 64, "ffn": 57344, "vocab": 250880}  # fmt: skip
_TITAN_ON = {"group": "torchtitan", "task": "pretrain", "framework": "torchtitan FSDP2", "gpu": "H100-SXM-96GB(HBM2e,500W)", "n_gpus": 8,
                 "precision": "bf16", "seq_len": 8192, "micro_batch": 2, "global_batch": 16, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "dp": 8, "zero_stage": "fsdp3",
                 "act_ckpt": "selective_op", "source": TITAN}  # fmt: skip
_BLOOM_ON = {"group": "bloom-prequel", "task": "pretrain", "framework": "Megatron-DeepSpeed (BF16Optimizer/fp16)", "gpu": "A100-SXM-80GB",
                 "precision": "bf16", "seq_len": 2048, "micro_batch": 1, "tp": 8, "pp": 1, "cp": 1, "ep": 1, "zero_stage": "1", "act_ckpt": "full",
                 "source": BLOOM}  # fmt: skip
_MPT_ON = {"group": "mpt", "task": "pretrain", "framework": "llm-foundry/composer FSDP1", "gpu": "H100-SXM-80GB", "precision": "bf16",
               "seq_len": 2048, "micro_batch": 8, "grad_accum": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "zero_stage": "3", "act_ckpt": "full", "source": MPT,
               "note": "mp_mode DEFAULT"}  # fmt: skip
_META_ON = {"gpu": "A100-SXM-80GB", "precision": "bf16", "batch_tokens": 4e6, "gpu_hours_kind": "reported", "tier": "A"}

MEMORY = [
    dict(id="M0000", **_LLAMA_3_8B, **_TITAN_ON, peak_gib=82.4, note="eager"),
    dict(id="M0001", **_LLAMA_3_8B, **_TITAN_ON, peak_gib=77.0, note="compile"),
    dict(id="M0055", **_BLOOM_20B, **_BLOOM_ON, n_gpus=8, dp=1, global_batch=2048, peak_gib=62.4, note="02-17"),
    dict(id="M0118", **_BLOOM_181B, **_BLOOM_ON, n_gpus=384, dp=48, global_batch=2016, oom=1, note="02-25"),
]
THROUGHPUT = [
    dict(id="T0000", **_MPT_70B, **_MPT_ON, n_gpus=512, global_batch=4096, dp=512, tok_s_gpu=1007),
    dict(id="T0001", **_MPT_70B, **_MPT_ON, n_gpus=256, global_batch=2048, dp=256, tok_s_gpu=1035),
    dict(id="T0002", **_MPT_70B, **_MPT_ON, n_gpus=128, global_batch=1024, dp=128, tok_s_gpu=1058),
    dict(id="T0556", **_LLAMA_3_8B, **_TITAN_ON, tok_s_gpu=5762, note="eager"),
]
RUNS = [
    dict(id="R001", name="LLaMA-13B", family="llama1", arch="llama-1-13b", params_total=13015449600, params_active=13015449600,
         n_layers=40, hidden=5120, n_heads=40, n_kv_heads=40, ffn=13824, vocab=32000, tokens=1e12, seq_len=2048, gpu_hours=135168,
         source=LLAMA_1, **_META_ON),
    dict(id="R004", name="Llama 2 7B", family="llama2", arch="llama-2-7b", params_total=6738149376, params_active=6738149376,
         n_layers=32, hidden=4096, n_heads=32, n_kv_heads=32, ffn=11008, vocab=32000, tokens=2e12, seq_len=4096, gpu_hours=184320,
         source=LLAMA_2, **_META_ON),
    dict(id="R006", name="Llama 2 70B", family="llama2", arch="llama-2-70b", params_total=68975329280, params_active=68975329280,
         n_layers=80, hidden=8192, n_heads=64, n_kv_heads=8, ffn=28672, vocab=32000, tokens=2e12, seq_len=4096, gpu_hours=1720320,
         source=LLAMA_2, **_META_ON),
]  # fmt: skip
POSTTRAIN = [
    {"id": "P040", "name": "OLMoE SFT", "stage": "sft", "model": "olmoe-1b-7b", "params_total": 6919028736, "params_active": 1281884160,
         "method": "full", "gpu": "H100-SXM-80GB", "n_gpus": 32, "wall_hours": 33, "gpu_hours": 1056, "gpu_hours_kind": "derived n x hours",
         "tier": "A", "source": "arXiv 2409.02060"},
]  # fmt: skip


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """A CSV of rows with any columns; returns its path."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def folder(path: Path) -> Path:
    """All four files."""
    for name, rows in (("memory", MEMORY), ("throughput", THROUGHPUT), ("runs", RUNS), ("posttrain", POSTTRAIN)):
        write(path / f"{name}.csv", list(rows))
    return path
