"""Hold the planner against published measurements: ``python -m bench.bench_plan FILE.csv ...``.

A file has one measured row a line with columns such as model shape, layout, gpu, seq_len, micro_batch, act_ckpt and
either ``peak_gib`` (memory) or ``tok_s_gpu`` (throughput). Prints, for each group of rows and over all: how many could
be planned, the median absolute error, the shares within 10 and 20 %, and rank correlation; and of rows known to run
out of memory how many the plan calls fitting. Rows that cannot be planned are counted with the reason.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from lablib.plan import Estimate, estimate
from lablib.specs import Accelerator, Cluster, LabError, ModelSpec, MoE, Parallelism, Pretrain, catalog
from lablib.specs.catalog import Table

Row = dict[str, str]
GPUS = {"A100-SXM-80GB": "a100-sxm", "A100-SXM-40GB": "a100-sxm-40gb", "H100-SXM-80GB": "h100-sxm", "H200-SXM-141GB": "h200-sxm",
        "B200-SXM-180GB": "b200-sxm", "B300-SXM-288GB": "b300-sxm", "GB200-186GB": "gb200", "GB300-288GB": "gb300",
        "H100-SXM-96GB(HBM2e,500W)": "h100-sxm", "L40S-48GB": "l40s", "80GB": "a100-sxm"}  # fmt: skip
RECOMPUTE = {"full": "full", "none": "none", "none?": "none", "": "none"}


class Unplannable(Exception):
    """A row that a Pretrain recipe cannot say."""


def whole(row: Row, name: str, default: int = 1) -> int:
    """A column as a number."""
    text = row.get(name) or ""
    return int(float(text)) if text else default


def model(row: Row) -> ModelSpec:
    """The row's model: the catalogue's, else a Llama with a feed-forward of as many parameters as the row's total."""
    models: Table[ModelSpec] = catalog.models
    if row["model"] in models:
        return models[row["model"]]
    layers, hidden, heads = whole(row, "n_layers"), whole(row, "hidden"), whole(row, "n_heads")
    vocab, kv = whole(row, "vocab"), whole(row, "n_kv_heads", heads)
    if hidden % heads or heads % kv:
        raise Unplannable("head dimension is not hidden / heads")
    if not row["params_total"]:
        raise Unplannable("no parameter count")
    if whole(row, "n_experts", 0):
        return _sparse(row, layers, hidden, heads, kv, vocab)
    head_dim = hidden // heads
    total = float(row["params_total"])
    tied = abs(total - _dense(layers, hidden, head_dim * kv, whole(row, "ffn"), vocab, 1)) < 0.02 * total
    rest = total - vocab * hidden * (1 if tied else 2) - layers * 2 * hidden * (hidden + head_dim * kv)
    width = 64 * max(1, round(rest / (3 * layers * hidden * 64)))
    return ModelSpec(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv,
        ffn=width,
        vocab=vocab,
        tied_embeddings=tied,
        max_seq_len=10**9,
    )


def _dense(layers: int, hidden: int, kv: int, ffn: int, vocab: int, tables: int) -> float:
    return vocab * hidden * tables + layers * (2 * hidden * (hidden + kv) + 3 * hidden * ffn)


def _sparse(row: Row, layers: int, hidden: int, heads: int, kv: int, vocab: int) -> ModelSpec:
    """Experts as wide as makes the row's total."""
    experts = whole(row, "n_experts")
    rest = float(row["params_total"]) - 2 * vocab * hidden - layers * 2 * hidden * (hidden + hidden // heads * kv)
    moe = MoE(experts=experts, top_k=whole(row, "top_k"), expert_ffn=round(rest / (3 * layers * hidden * experts)))
    return ModelSpec(family="qwen3_moe", layers=layers, hidden=hidden, heads=heads, kv_heads=kv, ffn=hidden, vocab=vocab,
                     moe=moe, max_seq_len=10**9)  # fmt: skip


def layout(row: Row) -> Parallelism:
    """The row's layout; ZeRO-1 and -2 communicate like replicas (once a step), and are planned as such."""
    tp, pp, cp = (whole(row, name) for name in ("tp", "pp", "cp"))
    split = (
        1 if "local batch" in row["note"] else whole(row, "micro_batch")
    )  # that note's micro_batch is a rank's whole batch
    data = max(1, whole(row, "n_gpus") // (tp * pp * cp))
    sharded = row.get("zero_stage", "") in ("3", "fsdp3")
    degrees = {"dp_shard": data} if sharded else {"dp_replicate": data}
    return Parallelism(**degrees, tp=tp, pp=pp, cp=cp, micro_batch_size=split)


def plan(row: Row) -> Estimate:
    """The plan of a row. Raises `Unplannable` with the reason, or `LabError`."""
    if row["task"] != "pretrain":
        raise Unplannable(f"task {row['task']}")
    if row["gpu"] not in GPUS:
        raise Unplannable(f"gpu {row['gpu']}")
    precision = {"bf16": "bf16", "fp16": "bf16"}.get(row["precision"], "fp8" if "fp8" in row["precision"] else "")
    if not precision:
        raise Unplannable(f"precision {row['precision']}")
    shape, parallel = model(row), layout(row)
    if "peak_gib" in row and row["zero_stage"] in ("1", "2") and parallel.dp > 1:
        raise Unplannable("ZeRO-1 or -2: the engine shards states wholly or not at all")
    recompute = "selective" if row["act_ckpt"].startswith("selective") else RECOMPUTE.get(row["act_ckpt"], "")
    if not recompute:
        raise Unplannable(f"recomputation {row['act_ckpt']}")
    seq = whole(row, "seq_len", 2048)
    batch = whole(row, "global_batch", parallel.micro_batch_size * parallel.dp) * seq
    recipe = Pretrain(
        model=shape.replace(max_seq_len=max(seq, shape.max_seq_len)), tokens=batch * 1000, seq_len=seq, batch_tokens=batch,
        parallelism=parallel, recompute=recompute, precision=precision, compile="compile" in row["note"] or "megatron" in row["group"],
    )  # fmt: skip
    gpus, per_node = recipe.gpus, min(8, recipe.gpus)
    return estimate(recipe, Cluster(accelerator=device(row), nodes=-(-gpus // per_node), gpus_per_node=per_node))


def device(row: Row) -> Accelerator:
    """The catalogue's accelerator; fp16 runs at the bf16 rate."""
    card = catalog.accelerators[GPUS[row["gpu"]]]
    if "500W" in row["gpu"]:  # a power-capped H100 with HBM2e: torchtitan's test bed; matmuls slow with the power
        return card.replace(
            memory_gib=95,
            bandwidth_gb_s=2400,
            measured_tflops={k: v * 500 / 700 for k, v in card.measured_tflops.items()},
        )
    return card


def report(rows: Iterable[Row], column: str) -> None:
    """Print the errors of `column` by group."""
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    refused: Counter[str] = Counter()
    ooms: list[bool] = []
    for row in rows:
        try:
            made = plan(row)
        except (Unplannable, LabError, ValueError) as error:
            refused[str(error).splitlines()[-1][:90]] += 1
            continue
        if row.get("oom") == "1":
            ooms.append(made.fits)
        elif row.get(column):
            ours = made.memory.peak_gib if column == "peak_gib" else made.tokens_per_second_per_gpu
            pairs[row["group"]].append((ours or 0.0, float(row[column])))
    print(f"{column}\n{'group':18} rows  median  within10  within20  bias  rank")
    for group in sorted(pairs, key=lambda name: -len(pairs[name])):
        _line(group, pairs[group])
    _line("all", [pair for group in pairs.values() for pair in group])
    if ooms:
        print(f"known to run out of memory: {len(ooms)}, planned as fitting: {sum(ooms)}")
    for reason, number in refused.most_common(8):
        print(f"  not planned {number:4}: {reason}")


def _line(group: str, pairs: list[tuple[float, float]]) -> None:
    ours, truth = np.array(pairs).T
    error = np.abs(ours / truth - 1)
    rank = spearmanr(ours, truth).statistic if len(pairs) > 2 else float("nan")
    print(
        f"{group:18} {len(pairs):4}  {np.median(error):6.1%}  {np.mean(error < 0.1):8.0%}  {np.mean(error < 0.2):8.0%}  {np.median(ours / truth):4.2f}  {rank:.2f}"
    )


def main(files: list[str]) -> None:
    """Report each file by what it measures."""
    for name in files:
        rows = list(csv.DictReader(Path(name).read_text(encoding="utf-8").splitlines()))
        report(rows, "peak_gib" if "peak_gib" in rows[0] else "tok_s_gpu")


if __name__ == "__main__":
    main(sys.argv[1:])
