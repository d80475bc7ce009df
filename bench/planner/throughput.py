"""Published training throughput: each row as a job on a machine, in tokens/s for one accelerator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from bench.planner.frameworks import ASSUMED, USUAL, Usual, compiled, engine_of, gbit_s
from bench.planner.rows import Row, Scored, Unplannable, accelerator_of, model_of, real, whole
from lablib.plan import efficiency, step
from lablib.plan.efficiency import Efficiency
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count, with_adapters
from lablib.specs import Cluster, LabError, LoRA, ModelSpec, Parallelism

PRECISIONS = (("nvfp4", "nvfp4"), ("mxfp8", "mxfp8"), ("fp8", "fp8"), ("float8", "fp8"), ("not stated", "fp8"), ("fp32", "fp32"),
              ("16", "bf16"))  # fmt: skip
"""The first that a row's precision contains; fp16 runs at bf16's rate."""
RECOMPUTE = (("selective_layer", "selective-layer"), ("selective_op", "selective-op"), ("selective+sp", "attention"),
             ("selective", "selective-layer"), ("full", "full"), ("none", "none"))  # fmt: skip
PUBLISH = (0.4, 3.5e9)
"""Seconds, and bytes/s of bf16 weights, that an RL trainer spends in each step to hand its weights to the samplers (fitted
on three models of prime-rl's table, whose full rows differ from LoRA rows of the same shape by their weights' bytes)."""
PADDED = {4: 1.45, 2: 1.25}
"""Longest of so many instruction samples over their mean: what an unpacked batch pads to (lengths spread log-normally
with a standard deviation of about 0.4)."""
ALPACA = 130.0
"""Mean tokens of an Alpaca sample with its prompt."""


def score(rows: list[Row]) -> Iterator[Scored]:
    """Predicted and published tokens/s/GPU of every row that says enough. Raises nothing for a bad row: `Unplannable`
    rows are left to the caller through `planned`."""
    for row in rows:
        yield scored(row)


def scored(row: Row, constants: Efficiency | None = None) -> Scored:
    """One row. Raises `Unplannable` with the reason."""
    try:
        made = planned(row)
        if made is None:
            raise Unplannable("no measured throughput")
        job, machine, published, extra = made
        if constants is not None:
            machine = replace(machine, efficiency=constants)
        predicted = rate(job, machine, extra)
    except (LabError, ValueError) as error:
        raise Unplannable(str(error).splitlines()[-1][:120]) from None
    band = machine.efficiency.matmul
    return Scored(
        row.get("id", ""), source(row), predicted, published, ASSUMED.get(source(row), ""),
        low=predicted * band.low / band.mid, high=predicted * band.high / band.mid,
    )  # fmt: skip


def source(row: Row) -> str:
    """The group that a row's errors count in."""
    return row.get("group") or row.get("framework") or "unknown"


def rate(job: Job, machine: Machine, extra: float = 0.0) -> float:
    """Tokens/s of one accelerator; `extra` seconds are spent beside the step."""
    return job.step_tokens / (sum(step.seconds(job, machine).values()) + extra) / job.layout.gpus


def planned(row: Row) -> tuple[Job, Machine, float, float] | None:
    """A row as a job on a machine, its published tokens/s/GPU, and seconds a step beside the job. None where nothing was
    measured. Raises `Unplannable` or `LabError` where the planner cannot say it."""
    usual = USUAL.get(source(row), Usual())
    model = _model(row, usual)
    seq, useful = _sequence(row, usual)
    published = _published(row, model, seq)
    if published is None:
        return None
    machine = _machine(row, usual)
    job = _job(row, usual, model, seq, machine)
    return job, machine, published / useful, _beside(row, job)


def _sequence(row: Row, usual: Usual) -> tuple[int, float]:
    """Tokens of a sequence as computed, and the share of them that the source counts: unpacked batches pad."""
    pad = PADDED.get(whole(row, "micro_batch", 4), 1.3)
    mean = re.search(r"mean (\d+)", row.get("seq_len", ""))
    if mean:
        return round(float(mean.group(1)) * pad), 1 / pad
    if source(row) == "torchtune" and "baseline" in row.get("note", "").lower():
        return round(ALPACA * pad), 1 / pad
    return whole(row, "seq_len", usual.seq_len), 1.0


def _model(row: Row, usual: Usual) -> ModelSpec:
    filled = dict(row)
    if not filled.get("vocab"):
        filled["vocab"] = str(usual.vocab)
    if not filled.get("n_heads") and filled.get("hidden"):
        filled["n_heads"] = str(max(1, int(float(filled["hidden"])) // 64))
    return model_of(filled)


def _machine(row: Row, usual: Usual) -> Machine:
    card = accelerator_of(row.get("gpu", ""))
    network = gbit_s(row, usual)
    card = card.replace(nic_gbit_s=network) if network else card
    if card.name.startswith(("gb200", "gb300")):
        card = card.replace(scaleup_gpus=72)
    per_node = 4 if card.name.startswith(("gb200", "gb300")) else 8
    gpus = whole(row, "n_gpus", 8)
    cluster = Cluster(accelerator=card, nodes=max(1, -(-gpus // per_node)), gpus_per_node=min(per_node, gpus))
    return Machine(cluster, efficiency.of(cluster), processes=gpus)


def precision(row: Row) -> str:
    """The planner's name of a row's precision; bf16 where it is empty. Raises `Unplannable`."""
    text = (row.get("precision") or "bf16").lower()
    for word, name in PRECISIONS:
        if word in text:
            return name
    raise Unplannable(f"precision {text!r}")


def recompute(row: Row, usual: Usual) -> str:
    """The planner's name of a row's recomputation."""
    text = (row.get("act_ckpt") or usual.recompute).lower()
    return next((name for word, name in RECOMPUTE if word in text), usual.recompute)


def _layout(row: Row, usual: Usual) -> Parallelism:
    tp, pp, cp, ep = (max(1, whole(row, name)) for name in ("tp", "pp", "cp", "ep"))
    data = max(1, whole(row, "n_gpus", 8) // (tp * pp * cp))
    stage = (row.get("zero_stage") or "").lower()
    zero = 3 if "3" in stage or "fsdp" in stage or not stage else 2 if "2" in stage else 1
    degrees: dict[str, int] = (
        {"dp_replicate": data} if stage == "0" and not row.get("n_experts") else {"dp_shard": data}
    )
    if "hsdp" in stage and data > 8 and data % 8 == 0:
        degrees, zero = {"dp_shard": 8, "dp_replicate": data // 8}, 3
    while (degrees.get("dp_shard", 1) * cp * tp) % ep:
        ep -= 1
    return Parallelism(
        **degrees, tp=tp, pp=pp, cp=cp, ep=ep, zero=zero, micro_batch_size=max(1, whole(row, "micro_batch")),
        sequence_parallel=(tp > 1 and usual.sequence_parallel) or "+sp" in (row.get("act_ckpt") or ""),
        virtual_stages=_virtual(row, pp), pp_schedule="1f1b",
    )  # fmt: skip


def _virtual(row: Row, pp: int) -> int:
    stages = whole(row, "vp")
    if pp > 1 and stages <= 1 and ("interleaved" in row.get("note", "").lower() or source(row) == "megatron-lm-2021"):
        layers = whole(row, "n_layers")
        return max(1, min(4, layers // pp))
    return stages if pp > 1 and stages > 0 else 1


def _job(row: Row, usual: Usual, model: ModelSpec, seq: int, machine: Machine) -> Job:
    layout, task = _layout(row, usual), (row.get("task") or "pretrain").lower()
    per_rank = max(1.0, (real(row, "global_batch") or layout.micro_batch_size * layout.dp) / layout.dp)
    if layout.pp > 1 and "titan" in row.get("framework", "").lower():
        # Its batch column is a rank's whole batch, split into micro-batches of one; weights stay gathered over them.
        layout = layout.replace(micro_batch_size=1, zero=2)
    adapters = "lora" in task or "peft" in task
    params = with_adapters(model, LoRA(rank=16)) if adapters else count(model)
    text = f"{task} {row.get('note', '')}".lower()
    made = Job(
        model, params, layout, seq, per_rank * layout.dp * seq, precision=precision(row), recompute=recompute(row, usual),
        fused=compiled(row), adapters=adapters, engine=engine_of(row),
        reduce_dtype="bf16" if "pure" in text else usual.reduce,
        offload="activations" if "offload" in f"{row.get('act_ckpt', '')} {row.get('offload', '')}" else "none",
        cross_entropy="chunked" if "chunked" in text or "rl-trainer" in text else "full",
    )  # fmt: skip
    if row.get("micro_batch"):
        return made
    sizes = (usual.micro_batch,) if usual.micro_batch else (1, 2, 4, 8)
    ways = [replace(made, layout=layout.replace(micro_batch_size=size)) for size in sizes if per_rank % size == 0]
    return max(ways or [made], key=lambda way: rate(way, machine))


def _beside(row: Row, job: Job) -> float:
    """Seconds of a step that are not the step: an RL trainer's weights."""
    text = (row.get("task") or "").lower()
    if not text.startswith("rl-trainer"):
        return 0.0
    return PUBLISH[0] + 2 * job.params.trainable / PUBLISH[1]


PEAKS = {"a100": 312.0, "h100": 989.0, "h200": 989.0, "b200": 2250.0, "b300": 2250.0, "gb": 2500.0, "v100": 125.0}
"""bf16 TFLOP/s that published utilisations are shares of."""


def _published(row: Row, model: ModelSpec, seq: int) -> float | None:
    """Tokens/s/GPU as published, or from a step's time, or from FLOP/s by the row's own convention."""
    direct = real(row, "tok_s_gpu")
    if direct:
        return direct
    gpus, batch = real(row, "n_gpus"), real(row, "global_batch")
    seconds = real(row, "step_time_s")
    if seconds and gpus and batch:
        return batch * seq / seconds / gpus
    name = re.sub(r"[^a-z0-9]", "", row.get("gpu", "").lower())
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    for column, scale, hardware in (
        ("hfu_tflops_gpu", 1.0, True),
        ("hfu", peak, True),
        ("tflops_gpu", 1.0, False),
        ("mfu", peak, False),
    ):
        value = real(row, column)
        if value and scale:
            return value * scale * 1e12 / flops_a_token(row, model, seq, hardware)
    return None


def flops_a_token(row: Row, model: ModelSpec, seq: int, hardware: bool) -> float:
    """FLOPs of one trained token as the row's source counts them: attention in full, causal or not; with `hardware` the
    repeated forward pass too, as Narayanan 2021 does (arXiv 2104.04473 eq. 3)."""
    # 12·L·h·s is attention in full, 6 for each weight that multiplies, the head's among them.
    attention = 12.0 * model.layers * model.heads * model.head_dim * seq
    parts = count(model).parts
    weights = count(model).active - parts.get("embedding", 0) - parts.get("head", 0)
    head = model.vocab * model.hidden
    convention = (row.get("flop_convention") or "").lower()
    if "causal attention counted half" in convention:
        attention /= 2
    if ("6n" in convention and "nanotron" not in convention) or "palm" in convention:
        return 6.0 * count(model).active + attention
    return (8.0 * weights + 6.0 * head + attention * 4 / 3) if hardware else 6.0 * (weights + head) + attention
