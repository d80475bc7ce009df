"""Published step times, copied with their sources, against plans that nobody tuned for the row."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from lablib.plan import step
from lablib.plan.efficiency import GPU
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.specs import Cluster, Parallelism, catalog

PUBLISHED = (
    # model, accelerator, nodes, layout, sequence, sequences a step, recompute, precision, fused, tokens/s/GPU
    ("llama-3-8b", "a100-sxm", 8, {"dp_shard": 64}, 8192, 64, "selective-op", "bf16", False, 2973),
    ("llama-3-70b", "a100-sxm", 8, {"dp_shard": 64}, 8192, 64, "full", "bf16", False, 331),
    ("llama-2-13b", "a100-sxm", 8, {"dp_shard": 64, "micro_batch_size": 2}, 4096, 128, "none", "bf16", False, 2162),
    ("llama-2-13b", "a100-sxm", 8, {"dp_shard": 64, "micro_batch_size": 2}, 4096, 128, "selective-op", "bf16", False, 1904),
    ("llama-2-7b", "a100-sxm", 16, {"dp_shard": 128, "micro_batch_size": 2}, 4096, 256, "none", "bf16", True, 4550),
    ("llama-2-70b", "h100-sxm", 12, {"dp_shard": 96, "micro_batch_size": 2}, 4096, 192, "selective-layer", "bf16", True, 890),
    ("llama-3.1-405b", "h100-sxm", 16, {"dp_shard": 16, "tp": 8, "micro_batch_size": 2}, 8192, 32, "full", "bf16", True, 109),
    ("llama-3.1-405b", "h100-sxm", 16, {"dp_shard": 16, "tp": 8, "micro_batch_size": 2}, 8192, 32, "full", "fp8", True, 177),
    ("llama-3-8b", "h100-sxm", 1, {"dp_shard": 8, "micro_batch_size": 2}, 8192, 16, "selective-op", "bf16", True, 6667),
    ("llama-3-8b", "h100-sxm", 1, {"dp_shard": 8, "micro_batch_size": 2}, 8192, 16, "selective-op", "fp8", True, 8532),
    ("llama-3-8b", "h100-sxm", 1, {"dp_shard": 8}, 32768, 8, "full", "fp8", True, 3890),
    ("qwen3-8b", "b200-sxm", 1, {"dp_shard": 4, "micro_batch_size": 16}, 2048, 64, "none", "bf16", True, 20913),
)  # fmt: skip
"""torchtitan docs/performance.md @4d88a8a44, benchmarks/llama3_h100_202412_torchtitan.md and components/quantization/nvfp4.md
(its H100s are capped at 500 W), and foundation-model-stack/fms-fsdp README.md @5a296af."""


def test_published_rows_rank_as_predicted_and_lie_near() -> None:
    measured, ours = [], []
    for name, card, nodes, layout, seq, batch, recompute, precision, fused, rate in PUBLISHED:
        model = catalog.models[name].replace(max_seq_len=10**6)
        job = Job(
            model, count(model), Parallelism(**layout), seq, batch * seq, precision=precision, recompute=recompute, fused=fused
        )  # fmt: skip
        measured.append(rate)
        ours.append(
            batch
            * seq
            / sum(step.seconds(job, Machine(Cluster(accelerator=card, nodes=nodes), GPU)).values())
            / job.layout.gpus
        )
    assert spearmanr(measured, ours).statistic > 0.97
    assert np.median(np.abs(np.array(ours) / measured - 1)) < 0.2
