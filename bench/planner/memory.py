"""Peak memory: each published row becomes a `Job` under its framework's conventions, and is predicted.

What a row does not say is taken from the framework's defaults, listed in `ASSUMED`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from bench.planner.rows import Row, Scored, Unplannable, accelerator_of, model_of, real, whole
from lablib.plan import memory
from lablib.plan.efficiency import GPU, Efficiency
from lablib.plan.engines import BF16, LAB, MEGATRON, MEGATRON_DEEPSPEED, NANOTRON, Engine
from lablib.plan.job import Job
from lablib.plan.params import count, with_adapters
from lablib.specs import LabError, LoRA, ModelSpec, Parallelism

ASSUMED = {
    "torchtitan": "reserved memory; fp32 shards, bf16 gathers; sequence parallelism with TP; a local batch is split into pp (1F1B) or 2·pp (interleaved) micro-batches",
    "nanotron": "reserved memory in GB as charted; sequence parallelism with TP; bf16 gradients beside fp32 accumulators",
    "bloom-prequel": "device memory as nvidia-smi shows it; fp16 weights and gradients, everything fp32 sharded by ZeRO-1; from 2022-02-28 the BF16 optimizer keeps fp32 gradients whole",
    "megatron-golden": "max allocated; 18 bytes a parameter or 6 + 12/d; unfused deterministic attention in toy models at context 1,024 unless cp > 1 or nondeterministic; vocabulary 50,257 where blank",
    "korthikanti": "a closed form: states 18 bytes, activations of the paper",
    "prime-rl": "fp32 shards; chunked loss in RL, full logits in SFT",
    "litgpt": "bf16 throughout; several GPUs gather the whole model",
    "torchtune": "one GPU, bf16 states; options add up in the order of the blog post; sequences of about 512 tokens unpacked",
    "peft-bench": "bf16 weights, batches of 4 with the longest sample of 768 tokens",
    "axolotl": "sequences of 2,048, micro-batch 1, full recomputation, 8-bit AdamW for adapters",
    "peft-readme": "DeepSpeed ZeRO-3 with parameters in host memory",
}
VERDICT = "reserved"
"""What must fit into the device, whatever the source measured."""
UNSEEN = 0.205
"""What a steady reading of device memory does not show: transient peaks and fragments. In the BLOOM chronicles a stage
ran out of 80 GB whose twin was read at 62 GiB."""
RESERVE = {"allocated": (0.1, 0.0), "reserved": (0.5, 0.06), "device": (6.0, 0.0)}
"""(GiB, share) above live tensors by what was read: cuBLAS workspaces; the caching allocator's slack; CUDA context, NCCL's
buffers for every group and the allocator's cache on a large job (fitted on 68 rows of the BLOOM chronicles, 2026-11)."""
NF4 = 0.5 + 4 / 64
"""Bytes of a weight in 4-bit NormalFloat with one fp32 scale for 64 weights (arXiv 2305.14314 §3)."""
NF4_DOUBLE = 0.5 + 1 / 64 + 4 / (64 * 256)
"""The same with 8-bit scales, themselves scaled in blocks of 256."""


UNKNOWN_DP = 64
"""Data-parallel ranks of a dense run whose GPU count is not given (its batch is about a thousand sequences)."""


class Setup(NamedTuple):
    """A row as the planner sees it."""

    job: Job
    measured: str
    extra: float = 0.0
    """Bytes beside what a `Job` says (a gathered copy, a dequantised layer)."""


def score(rows: list[Row]) -> Iterator[Scored]:
    """The prediction for each row, in GiB; a row known to run out of memory has no published figure and kind "oom".

    Raises nothing: what cannot be planned is yielded by the caller's `Unplannable` handling, row by row.
    """
    for row in rows:
        yield predict(row)


def predict(row: Row) -> Scored:
    """One row. Raises `Unplannable` with the reason."""
    source = row["group"]
    try:
        setup = _setup(row, source)
    except LabError as error:
        raise Unplannable(str(error)) from None
    oom, published = row.get("oom") == "1", real(row, "peak_gib", math.nan)
    assert published is not None
    if not oom and math.isnan(published):
        raise Unplannable("no peak memory is published")
    capacity = accelerator_of(row["gpu"]).memory_gib
    used = _peak(setup, setup.measured)
    needed = used / (1 - UNSEEN) if setup.measured == "device" else max(used, _peak(setup, VERDICT))
    ran = "closed form" not in row["note"]
    return Scored(row["id"], source, used, math.nan if oom else published, kind="oom" if oom else "",
                  fits=needed <= capacity if ran else None)  # fmt: skip


def _peak(setup: Setup, measured: str) -> float:
    """GiB at the peak, as `measured` would show it."""
    return memory.peak(setup.job, _overhead(measured), 0.0).peak_gib + setup.extra / memory.GIB


def _overhead(measured: str) -> Efficiency:
    reserve, share = RESERVE[measured]
    return GPU.replace(reserve_gib=reserve, fragmentation=share)


def _setup(row: Row, source: str) -> Setup:
    framework = (row["framework"] + " " + source).lower()
    for name, make in MAKERS.items():
        if name in framework:
            return make(row)
    return _torchtitan(row)


def _job(row: Row, engine: Engine, **changes: object) -> Job:
    model = model_of(row)
    layout, sequence = _layout(row), _sequence(row)
    batch = whole(row, "global_batch", 0) or layout.micro_batch_size * layout.dp * max(1, whole(row, "grad_accum", 1))
    base = Job(
        model=model.replace(max_seq_len=max(sequence, model.max_seq_len)),
        params=count(model),
        layout=layout,
        seq_len=sequence,
        step_tokens=batch * sequence,
        precision="bf16",
        recompute=_recompute(row["act_ckpt"]),
        fused="compile" in row["note"].lower(),
        engine=engine,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def _sequence(row: Row, default: int = 2048) -> int:
    digits = "".join(c if c.isdigit() else " " for c in row.get("seq_len", "")).split()
    return int(digits[0]) if digits else default


def _layout(row: Row) -> Parallelism:
    tp, pp, cp, ep = (max(1, whole(row, name, 1)) for name in ("tp", "pp", "cp", "ep"))
    gpus = whole(row, "n_gpus", 0) or (max(1, whole(row, "dp", 0)) * tp * pp * cp)
    data = whole(row, "dp", 0) or max(1, gpus // (tp * pp * cp))
    if not row.get("n_gpus") and not row.get("dp"):
        data = max(8, ep) if ep > 1 else UNKNOWN_DP
    zero = row.get("zero_stage", "")
    stage = {"1": 1, "2": 2}.get(zero, 3)
    name = "dp_replicate" if zero in ("0", "") else "dp_shard"
    ep = ep if (data * cp * tp) % ep == 0 and name == "dp_shard" else 1 if name == "dp_shard" else ep
    degrees = {name: data} if name == "dp_shard" or ep == 1 else {"dp_shard": data, "zero": 1}
    return Parallelism(**{"zero": stage, **degrees}, tp=tp, pp=pp, cp=cp, ep=ep, micro_batch_size=max(1, whole(row, "micro_batch", 1)),
                       virtual_stages=max(1, whole(row, "vp", 1)), sequence_parallel=tp > 1)  # fmt: skip


def _recompute(policy: str) -> str:
    if policy.startswith("full"):
        return "full"
    if policy in ("selective_op", "selective_layer"):
        return policy.replace("_", "-")
    if policy.startswith("selective+sp"):
        return "attention"
    return "selective" if policy.startswith("selective") else "none"


def _torchtitan(row: Row) -> Setup:
    note = row["note"].lower()
    engine = LAB.replace(
        name="torchtitan", vocab_parallel=True, keeps_gathered=True, loss_bytes=18 if "eager" in note else 14
    )
    job = _job(row, engine)
    if row["act_ckpt"] in ("", "none?"):  # newer releases: the default policy, and logits are never whole
        job = replace(job, recompute="selective-op", cross_entropy="chunked")
    layout = job.layout
    if layout.pp > 1:
        slices = 2 if "interleaved" in note else 1
        size = max(1, layout.micro_batch_size // (layout.pp * slices))
        layout = layout.replace(micro_batch_size=size, virtual_stages=slices)
    return Setup(replace(job, layout=layout), "reserved")


def _nanotron(row: Row) -> Setup:
    return Setup(_job(row, NANOTRON), "reserved")


def _bloom(row: Row) -> Setup:
    engine = MEGATRON_DEEPSPEED.replace(attention="math")
    if row["note"].startswith("02-28"):
        engine = engine.replace(grads=6, master=4)
    job = _job(row, engine)
    return Setup(replace(job, layout=job.layout.replace(sequence_parallel=False)), "device")


def _megatron(row: Row) -> Setup:
    note, name = row["note"], row["model"]
    toy = "toy" in note and _sequence(row) <= 1024
    math = toy and whole(row, "cp", 1) == 1 and "nondeterministic" not in name
    engine = MEGATRON.replace(attention="math" if math else "fa2", dropout="cp2" not in name)
    job = _job(row, engine)
    layout = job.layout.replace(sequence_parallel="SP=True" in note)
    return Setup(replace(job, layout=layout), "allocated")


def _korthikanti(row: Row) -> Setup:
    job = _job(row, MEGATRON.replace(attention="math", rotated=False, loss_bytes=0))
    layout = job.layout.replace(sequence_parallel="+sp" in row["act_ckpt"])
    return Setup(replace(job, layout=layout, step_tokens=job.seq_len * 1024), "allocated")


def _prime_rl(row: Row) -> Setup:
    sft = row["task"].startswith("sft")
    job = _job(
        row, LAB.replace(name="prime-rl", loss_bytes=16, dispatch=1.6), cross_entropy="full" if sft else "chunked"
    )
    if "lora" in row["task"]:
        job = replace(job, params=with_adapters(job.model, LoRA(rank=16)), adapters=True)
    return Setup(replace(job, offload="activations" if "offload" in row["act_ckpt"] else "none"), "reserved")


def _adapted(job: Job, trainable: float) -> Job:
    """The job with `trainable` adapter parameters beside a frozen base."""
    made = with_adapters(job.model, LoRA(rank=8))
    size = round(trainable) or made.trainable
    total = count(job.model).total + size
    parts = {**made.parts, "adapters": size}
    return replace(job, params=made.replace(total=total, active=total, trainable=size, parts=parts), adapters=True)


def _quantised(job: Job, model: ModelSpec, text: str) -> tuple[float | None, float]:
    """(mean bytes of a base weight, bytes of the largest layer dequantised) of a precision such as "bnb.nf4-dq"."""
    if "nf4" not in text and "qlora" not in text:
        return None, 0.0
    each = NF4_DOUBLE if "dq" in text or "qlora" in text else NF4
    parts = count(model).parts
    linear = 1 - parts.get("embedding", 0) / job.params.total
    return each * linear + 2 * (1 - linear), 2.0 * model.hidden * model.ffn


def _litgpt(row: Row) -> Setup:
    task, precision = row["task"], row["precision"]
    job = _job(row, BF16)
    if task == "inference":
        job = replace(_adapted(job, 1), recompute="full", seq_len=256, step_tokens=256)
        job = replace(job, layout=job.layout.replace(micro_batch_size=1))
    else:
        job = _adapted(job, whole(row, "trainable_params", 0))
    base, layer = _quantised(job, job.model, precision)
    shards = job.layout.dp_shard
    gathered = 2.0 * job.params.total - memory.buffers(job) if shards > 1 else 0.0
    return Setup(replace(job, base_bytes=base, layout=job.layout.replace(zero=3)), "allocated", layer + gathered)


TUNE = ("baseline", "packed", "+compile", "+chunked ce", "+ac", "+opt in bwd", "+act offload", "+8bit adamw")
"""torchtune's options in the order of its blog post; each row has those before it too."""


def _torchtune(row: Row) -> Setup:
    note, task = row["note"].lower(), row["task"]
    at = max(
        (i for i, name in enumerate(TUNE) if note.startswith(name)), default=len(TUNE) if "cumulative" in note else 1
    )
    default = "default recipe" in note
    job = _job(row, BF16, optimizer="adamw-bf16", fused=at >= 2, cross_entropy="chunked" if at >= 3 else "full")
    job = replace(
        job, recompute="full" if at >= 4 or default else "none", seq_len=512 if at == 0 or default else job.seq_len
    )
    job = replace(job, step_tokens=job.seq_len * job.layout.micro_batch_size * job.layout.dp)
    if at >= 5 or "optimizer-in-bwd" in note:
        job = replace(job, engine=job.engine.replace(grads=0.05))
    if at >= 6 and not default:
        job = replace(job, offload="activations")
    if at >= 7 or "8bit" in note:
        job = replace(job, optimizer="adamw-8bit")
    if "paged" in note:
        job = replace(job, offload="optimizer")
    base, layer = None, 0.0
    if task in ("lora", "qlora"):
        job = _adapted(job, whole(row, "trainable_params", 0))
        base, layer = _quantised(job, job.model, task)
    if whole(row, "n_gpus", 1) > 1:
        job = replace(job, layout=job.layout.replace(dp_replicate=1, dp_shard=whole(row, "n_gpus", 1)))
    return Setup(replace(job, base_bytes=base), "allocated", layer)


def _peft(row: Row) -> Setup:
    job = _job(row, BF16, optimizer="adamw-bf16", recompute="none")
    if row["task"] != "full":
        job = _adapted(job, whole(row, "trainable_params", 0))
    return Setup(job, "reserved")


def _offloaded(row: Row) -> Setup:
    job = _adapted(_job(row, BF16, recompute="none", seq_len=64), 0)
    return Setup(replace(job, step_tokens=64 * job.layout.micro_batch_size), "reserved")


def _axolotl(row: Row) -> Setup:
    job = _job(row, BF16, recompute="full", optimizer="adamw-8bit")
    gpus = max(1, whole(row, "n_gpus", 1))
    job = replace(job, layout=Parallelism(dp_shard=gpus), offload="all" if "offload" in row["task"] else "none")
    base, layer = None, 0.0
    if "lora" in row["task"]:
        job = _adapted(job, whole(row, "trainable_params", 0))
        base, layer = _quantised(job, job.model, row["task"])
    return Setup(replace(job, base_bytes=base), "reserved", layer)


MAKERS = {
    "torchtitan": _torchtitan,
    "nanotron": _nanotron,
    "deepspeed (bf16": _bloom,
    "megatron-lm 2022": _korthikanti,
    "megatron": _megatron,
    "prime-rl": _prime_rl,
    "litgpt": _litgpt,
    "torchtune": _torchtune,
    "peft-readme": _offloaded,
    "peft": _peft,
    "axolotl": _axolotl,
}
