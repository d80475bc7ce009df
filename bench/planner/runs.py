"""GPU-hours of whole published runs: a layout as published or by a rule, the steady step, and goodput.

Of what a row leaves out, the number of GPUs is taken as what finishes in a month, the layout as the guide's rule by size
(§8.4), widened until it fits in memory, and the attention kernel by the date of the row's source. No constant belongs to
one model; second-hand figures widen the band.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.planner.rows import Row, Scored, Unplannable, accelerator_of, model_of, real, whole
from lablib.plan import conventions, goodput, memory, step
from lablib.plan.efficiency import GPU
from lablib.plan.engines import LAB, MEGATRON, Engine
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.specs import Accelerator, Cluster, LabError, ModelSpec, Parallelism

MONTH = 30 * 24.0
"""Hours that a run of an unknown number of GPUs is planned for, at `USUAL` of the peak."""
USUAL = 0.4
LARGEST_FSDP = 20e9
"""Parameters up to which a run of unknown layout is taken as FSDP alone; above it as TP within the node and PP."""
BATCH = 4e6
"""Tokens of a step where the row has none: LLaMA to Llama 3 take 4M."""
EARLY = MEGATRON.replace(name="megatron-2021", attention="math", overlap=0.0)
"""Megatron-LM before FlashAttention (arXiv 2205.14135): unfused attention; gradients exchanged after the backward pass, which FSDP (arXiv 2304.11277) never did."""
TRITON = MEGATRON.replace(name="2023", attention="fa1")
MODERN = MEGATRON.replace(name="modern", attention="fa2", tp_overlap=0.6, ep_overlap=0.5)
"""FlashAttention-2 (arXiv 2307.08691); tensor- and expert-parallel collectives are cut up beside the matmuls they feed."""
ENGINES = ((2301, EARLY), (2307, TRITON), (9999, MODERN))
"""By the month of the source (YYMM)."""
SELECTIVE = 2301
"""From this month on layers are recomputed only where memory asks for it (LLaMA, arXiv 2302.13971 §2.4); before it, or in
fp16, wholly: the configurations of BLOOM, GLM-130B, OPT and Pythia all say so."""
DATES = {"A100": 2310, "A800": 2310, "V100": 2101, "TPU": 2112, "H100": 2406, "H800": 2405}
"""The month where the source has none, by accelerator."""
ASSUMED = {
    "all": "pretraining FLOPs on the published tokens alone; published layouts as written, else the fastest usual one of its "
    "size, era and accelerator that fits; fp16 or before 2023: full recomputation; hours are whole, restarts included",
    "pythia": "hours are iteration time x iterations, without restarts",
    "deepseek": "H800: NVLink halved; hours published for pretraining alone",
}
"""What a source leaves unsaid."""
BANDS = {"solid": Range(low=0.71, mid=1.0, high=1.40), "vague": Range(low=0.71, mid=1.0, high=2.67)}
"""The 80 % band of published over planned hours, from families that the fit had not seen (``bench/planner/fit_runs.py``):
first-hand figures; and a model known by its size alone, or hours that are second-hand or a bound. Most of the latter hide
restarts, ablations or several passes, so their band is wider above."""


class Run(NamedTuple):
    """A row as the planner sees it."""

    job: Job
    cluster: Cluster
    tokens: float
    assumed: tuple[str, ...]
    kind: str
    """"known" layout, "assumed" layout, or "vague": a size alone, or second-hand hours."""


def score(rows: list[Row]) -> Iterator[Scored]:
    """GPU-hours of each row with their 80 % band. Raises `Unplannable` with the reason."""
    for row in rows:
        yield predict(row)


def predict(row: Row) -> Scored:
    """One row. Raises `Unplannable` with the reason."""
    published, how = hours_of(row)
    try:
        run = run_of(row)
        hours = gpu_hours(run)
    except LabError as error:
        raise Unplannable(str(error)) from None
    note = "; ".join((*run.assumed, how, *_anomaly(run, published)))
    return Scored(row["id"], row.get("family") or row["name"], hours.mid, published, note, hours.low, hours.high)


def hours_of(row: Row) -> tuple[float, str]:
    """(published GPU-hours, how the source came by them). Raises `Unplannable` where there are none: days times the largest
    number of GPUs would be a bound only, for the number often grows in a run."""
    reported = real(row, "gpu_hours")
    if reported:
        return reported, row.get("gpu_hours_kind", "")
    raise Unplannable("no GPU-hours are published")


def gpu_hours(run: Run, slow: float = goodput.SLOW.mid) -> Range:
    """Steady steps over goodput, with `BANDS` around it; `slow` is the wall time of uninterrupted steps over the model's."""
    job, gpus = run.job, run.job.layout.gpus
    useful = run.tokens * seconds_a_token(job, run.cluster)
    size = goodput.CHECKPOINT_BYTES * job.params.total
    effective = goodput.of(gpus, size, slow=Range.exactly(slow), longest=useful).effective.mid
    return BANDS["vague" if run.kind == "vague" else "solid"].times(useful * gpus / 3600 / effective)


def _anomaly(run: Run, published: float) -> tuple[str, ...]:
    peak = run.cluster.accelerator.peak("fp8" if run.job.precision == "fp8" else "bf16")
    share = conventions.claimed_mfu(run.job.model, run.tokens, published, peak) if peak else 0.3
    return (
        (f"inconsistent: {share:.0%} of the peak",)
        if share < 0.15
        else (f"impossible: {share:.0%} of the peak",)
        if share > 0.7
        else ()
    )


def run_of(row: Row) -> Run:
    """The row as a job on a cluster. Raises `Unplannable` where size or tokens are unknown."""
    tokens = real(row, "tokens")
    if not tokens:
        raise Unplannable("tokens unknown")
    if not real(row, "params_total"):
        raise Unplannable("size unknown")
    model, card, date = model_of(row), accelerator_of(row["gpu"]), _date(row)
    seq = whole(row, "seq_len", 2048 if date < 2307 else 4096)
    model = model.replace(max_seq_len=max(seq, model.max_seq_len))
    batch = real(row, "batch_tokens") or BATCH
    gpus, known_gpus = _gpus(row, model, card, tokens, batch / seq)
    published = layout_of(row.get("layout", ""), gpus)
    engine = next(engine for month, engine in ENGINES if date < month)
    if "DualPipe" in row.get("layout", ""):
        engine = engine.replace(ep_overlap=1.0)  # arXiv 2412.19437 §3.2.1: the all-to-all is hidden wholly
    precision = "fp8" if "fp8" in row.get("precision", "") else "bf16"
    cluster = Cluster(accelerator=card, nodes=max(1, math.ceil(gpus / 8)), gpus_per_node=min(8, gpus))
    whole_layers = date < SELECTIVE or row.get("precision") == "fp16"
    shape = Shape(model, engine, card, seq, batch, precision, _recomputation(model, whole_layers))
    job = _fastest_fitting(shape, [published] if published else list(by_rule(model, gpus, whole_layers)), cluster)
    assumed = [name for name, missing in (
        ("GPUs", not known_gpus), ("layout", published is None), ("size only", not real(row, "n_layers")), ("batch", not real(row, "batch_tokens")),
    ) if missing]  # fmt: skip
    return Run(job, cluster, tokens, tuple(assumed), kind_of(row, assumed))


def _recomputation(model: ModelSpec, whole_layers: bool) -> tuple[str, ...]:
    """What may be recomputed. Models with latent attention repeat its up-projections and norms alone, whatever the memory
    here says (arXiv 2412.19437 §3.2.3)."""
    if whole_layers:
        return ("full",)
    return ("selective",) if model.mla else ("none", "selective", "selective-layer", "full")


def kind_of(row: Row, assumed: Sequence[str]) -> str:
    """How much is known of a row; `BANDS` has one band for vague rows and one for the rest."""
    if "size only" in assumed or row.get("tier", "").upper() != "A":
        return "vague"
    return "assumed" if "layout" in assumed or "GPUs" in assumed else "known"


class Shape(NamedTuple):
    """What every candidate layout of a run has in common."""

    model: ModelSpec
    engine: Engine
    card: Accelerator
    seq_len: int
    batch: float
    precision: str
    recompute: tuple[str, ...]


def _date(row: Row) -> int:
    """YYMM of the row's arXiv source, else what its accelerator suggests."""
    found = [int(month) for month in re.findall(r"arxiv\.org/abs/(\d{4})\.", row.get("source", ""))]
    return max(found) if found else next((month for name, month in DATES.items() if name in row["gpu"].upper()), 2406)


def _gpus(row: Row, model: ModelSpec, card: Accelerator, tokens: float, sequences: float) -> tuple[int, bool]:
    """The published number, else the power of two that finishes in a month, no more than a batch has sequences."""
    known = whole(row, "n_gpus", 0)
    if known:
        return known, True
    dp = re.search(r"\bDP(?:\d+\.\.)?(\d+)", row.get("layout", ""))
    degrees = math.prod(int(n) for n in re.findall(r"\b[TP]P(\d+)", row.get("layout", "")))
    if dp:
        return int(dp.group(1)) * degrees, True
    peak = card.peak("bf16") or 1e14
    wanted = 6 * count(model).active * tokens / (USUAL * peak) / 3600 / MONTH
    largest = max(8, 2 ** int(math.log2(max(8, sequences)))) * max(1, degrees)
    return max(8, degrees, min(2 ** round(math.log2(max(8, wanted))), largest)), False


def layout_of(text: str, gpus: int) -> Parallelism | None:
    """A layout as written ("TP4 PP12 DP8 ZeRO-1", "TP8 + FSDP", "FSDP"), None where it says nothing."""
    degrees = {name.lower(): int(n) for name, n in re.findall(r"\b(TP|PP|VP|EP|CP)(\d+)", text)}
    virtual = re.search(r"VP(\d+)", text)
    if not degrees and "FSDP" not in text:
        return None
    tp, pp, cp = (degrees.get(name, 1) for name in ("tp", "pp", "cp"))
    if gpus % (tp * pp * cp):
        return None
    data = gpus // (tp * pp * cp)
    ep = degrees.get("ep", 1)
    zero_bubble = "zero bubble" in text or "DualPipe" in text
    return Parallelism(
        dp_shard=data, tp=tp, pp=pp, cp=cp, ep=ep if (data * tp * cp) % ep == 0 else 1,
        zero=3 if "FSDP" in text else 1, sequence_parallel=tp > 1 and "FSDP" not in text,
        virtual_stages=int(virtual.group(1)) if virtual and pp > 1 else 1,
        pp_schedule="zero-bubble" if zero_bubble else "1f1b",
    )  # fmt: skip


def by_rule(model: ModelSpec, gpus: int, early: bool) -> Iterator[Parallelism]:
    """What a run of unknown layout may have used. Early ones: Megatron's TP and PP with ZeRO-1. Later ones by size: FSDP
    alone up to `LARGEST_FSDP`; above it also TP of up to a node with sequence parallelism, and pipeline stages. Experts
    are spread over a node."""
    if not early:
        yield Parallelism(dp_shard=gpus)
        if count(model).total <= LARGEST_FSDP:
            return
    for pp in (1, 2, 4, 8, 16):
        for tp in (1,) if model.moe else (1, 2, 4, 8) if early else (2, 4, 8):
            if gpus % (tp * pp) or model.heads % tp or model.layers < pp:
                continue
            ep = math.gcd(8, math.gcd(model.moe.experts, gpus // pp)) if model.moe else 1
            for zero in (1, 3) if pp == 1 and not early else (1,):
                yield Parallelism(dp_shard=gpus // (tp * pp), tp=tp, pp=pp, ep=ep, zero=zero, sequence_parallel=tp > 1 and not early)  # fmt: skip


def _fastest_fitting(shape: Shape, layouts: list[Parallelism], cluster: Cluster) -> Job:
    """The fastest job that fits of the layouts, recomputation and micro-batches; of those that never fit the smallest."""
    jobs = [
        _job(shape, layout.replace(micro_batch_size=micro), recompute)
        for layout in layouts
        for recompute in shape.recompute
        for micro in (1, 2, 4, 8)
        if micro == 1 or shape.batch >= 0.9 * micro * shape.seq_len * layout.dp * layout.pp
    ]
    room = {id(job): memory.peak(job, GPU, shape.card.memory_gib).margin for job in jobs}
    fitting = [job for job in jobs if room[id(job)] >= memory.MARGIN]
    if not fitting:
        return max(jobs, key=lambda job: room[id(job)])
    return min(fitting, key=lambda job: seconds_a_token(job, cluster))


def seconds_a_token(job: Job, cluster: Cluster) -> float:
    """Steady seconds of a step for each of its tokens."""
    return sum(step.seconds(job, Machine(cluster, GPU, 1, job.layout.gpus)).values()) / job.step_tokens


def _job(shape: Shape, layout: Parallelism, recompute: str) -> Job:
    unit = shape.seq_len * layout.micro_batch_size * layout.dp
    return Job(
        model=shape.model,
        params=count(shape.model),
        layout=layout,
        seq_len=shape.seq_len,
        step_tokens=max(1, round(shape.batch / unit)) * unit,
        precision=shape.precision,
        recompute=recompute,
        engine=shape.engine.replace(overlap=LAB.overlap) if layout.zero == 3 else shape.engine,
    )
